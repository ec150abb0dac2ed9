"""Measure one environment at one number of agents: a script that ``peers`` runs in a virtual environment of its own.

It imports nothing of jaxmas but to measure jaxmas itself. All play random legal actions, drawn inside the compiled
program; everything that agents see is multiplied by ones, as a policy's first layer would read it, so that no part of
it goes uncomputed; an episode that is over gives way to a new one. Prints one JSON object per batch size.
"""

import dataclasses
import importlib
import importlib.metadata
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

STEPS = 96
"""Environment steps per timed call: a multiple of jaxmas's plan intervals."""
FLOOR = 32
"""Side of the peers' floors: about as many cells as warehouse-medium-v0 has."""
SIGHT = 3
"""Cells that an agent sees to each side, where that can be chosen: as in warehouse."""


@dataclasses.dataclass(frozen=True)
class System:
    """A batch of environments, as functions to compile; ``play`` returns the state and what was counted."""

    data: Any
    """What ``play`` is given at every call: numbers of the scenario."""
    reset: Callable[[Any], Any]
    play: Callable[[Any, Any, Any], tuple[Any, Any]]
    sees: int
    """Numbers that one agent sees."""


def main(task: dict[str, Any]) -> None:
    """Measure the batch sizes in turn; POGEMA plays one environment."""
    _be_bound(task)
    alone = task["system"] == "pogema"
    for batch in [1] if alone else task["batches"]:
        record = _measure_numpy(task) if alone else _measure_jax(task, batch)
        print(json.dumps({"num_envs": batch, **record}), flush=True)


def _be_bound(task: dict[str, Any]) -> None:
    """Keep to one core, so that no thread spins while another works, and to so many CPU-seconds."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[task["core"] % len(cores)]})
    resource.setrlimit(resource.RLIMIT_CPU, (task["limit"], task["limit"] + 5))


def cpu_seconds() -> float:
    """Return the CPU time of all threads of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def timed(call: Callable[[], float], seconds: float) -> dict[str, float]:
    """Repeat a call for so many CPU-seconds; return its agent-steps per CPU-second in all, and of the extreme calls.

    The first call warms caches up and is left out. Four times as long at most, where three calls take longer.
    """
    call()
    rows: list[tuple[float, float]] = []
    spent = 0.0
    while spent < (seconds if len(rows) >= 3 else 4 * seconds):
        began = cpu_seconds()
        steps = call()
        rows.append((steps, max(cpu_seconds() - began, 1e-6)))
        spent += rows[-1][1]
    return {
        "agent_steps_per_cpu_second": sum(steps for steps, _ in rows) / spent,
        "slowest": min(steps / used for steps, used in rows),
        "fastest": max(steps / used for steps, used in rows),
        "repeats": len(rows),
    }


def _measure_jax(task: dict[str, Any], batch: int) -> dict[str, Any]:
    """Compile and time a batch of environments, one jitted scan per call."""
    import jax

    agents = task["agents"]
    system: System = SYSTEMS[task["system"]](agents, batch)
    state = jax.jit(jax.vmap(system.reset))(jax.random.split(jax.random.key(0), batch))
    keys = jax.random.split(jax.random.key(1), 2)
    jax.block_until_ready((state, keys))
    began, wall = cpu_seconds(), time.perf_counter()
    compiled = jax.jit(system.play).lower(system.data, state, keys[0]).compile()
    compile_seconds, compile_wall = cpu_seconds() - began, time.perf_counter() - wall
    totals, key = [0.0, 0.0, 0.0], keys[1]

    def call() -> float:
        nonlocal state, key
        key, now = jax.random.split(key)
        state, counts = jax.block_until_ready(compiled(system.data, state, now))
        live, acting = float(counts[0]), float(counts[1])
        for place, count in enumerate((live, acting, batch * STEPS)):
            totals[place] += count
        return live * agents

    speeds = timed(call, task["seconds"])
    return {
        "compile_seconds": compile_seconds,
        "compile_wall_seconds": compile_wall,
        **speeds,
        "sees": system.sees,
        "live_share": totals[0] / totals[2],
        "acting_share": totals[1] / max(totals[0] * agents, 1.0),
        "versions": _versions(task["packages"]),
    }


def _versions(packages: list[str]) -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in packages}


def _jaxmas(scenario: str, agents: int, batch: int) -> System:
    """Return the whole roll-out on two timescales: random plans, and the team observation that goes with them."""
    import jax
    import jax.numpy as jnp

    import jaxmas
    from jaxmas.executors import UntrainedExecutor, feature_size
    from jaxmas.policies import RandomPolicy
    from jaxmas.rollout import Policies, begin, play_on

    class Seeing(UntrainedExecutor):
        """Random legal actions; what was seen is read."""

        def init(self, num_agents: int) -> Any:
            return jnp.float32(0)

        def apply(self, params: Any, carry: Any, observation: Any, mask: Any, key: Any) -> tuple[Any, Any]:
            _, distribution = super().apply(params, (), observation, mask, key)
            return carry + _total(observation.features), distribution

    env, params = jaxmas.make(scenario, num_agents=agents)
    policies = Policies(RandomPolicy(env), None, Seeing(), None)

    def interval(params, episodes, keys):
        episodes, step, _ = jax.vmap(lambda episode, keys: play_on(env, params, policies, episode, keys))(
            episodes, keys
        )
        team = step.team
        used = (team.task_tokens, team.agent_tokens, team.pair_features, team.global_features, step.metrics)
        counts = jnp.sum(step.steps), jnp.sum(step.acting), _total((used, step.reward))
        return episodes, jnp.stack([jnp.float32(count) for count in counts])

    def play(params, episodes, key):
        keys = jax.random.split(key, (STEPS // env.coordination_interval, batch, 2))
        episodes, counts = jax.lax.scan(lambda episodes, now: interval(params, episodes, now), episodes, keys)
        return episodes, jnp.sum(counts, axis=0)

    return System(params, lambda key: begin(env, params, policies, key), play, feature_size(env, params))


def _peer(reset: Callable, step: Callable, agents: int, batch: int, sees: int) -> System:
    """Return a peer's batch; ``step`` maps key and state to the next state and the sum of what was seen."""
    import jax
    import jax.numpy as jnp

    def play(data, state, key):
        state, seen = jax.lax.scan(lambda state, key: step(key, state), state, jax.random.split(key, STEPS))
        return state, jnp.stack([jnp.float32(batch * STEPS), jnp.float32(batch * STEPS * agents), jnp.sum(seen)])

    return System(None, reset, play, sees)


def legal_actions(key: Any, mask: Any) -> Any:
    """Draw one legal action per row, from one uniform number."""
    import jax
    import jax.numpy as jnp

    below = jnp.cumsum(mask.astype(jnp.int32), axis=-1)
    chosen = (jax.random.uniform(key, mask.shape[:-1]) * below[..., -1]).astype(jnp.int32)
    return jnp.argmax(below > chosen[..., None], axis=-1).astype(jnp.int32)


def _total(tree: Any) -> Any:
    """Return the sum of everything, by products with ones: processors take several times as long to add numbers up."""
    import jax
    import jax.numpy as jnp

    rows = [leaf.astype(jnp.float32).reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(tree)]
    return sum(jnp.sum(row @ jnp.ones(row.shape[1])) for row in rows)


def _robot_warehouse(agents: int, batch: int) -> System:
    """Return Jumanji's warehouse, on a floor like ours, as many requests as robots."""
    module = "jumanji.environments.routing.robot_warehouse"
    generator = importlib.import_module(f"{module}.generator").RandomGenerator(
        shelf_rows=8, shelf_columns=7, column_height=5, num_agents=agents, sensor_range=2, request_queue_size=agents
    )
    return _jumanji(importlib.import_module(module).RobotWarehouse(generator), agents, batch, "each")


def _level_based_foraging(agents: int, batch: int) -> System:
    """Return Jumanji's foraging, one food item for four agents, seen as squares of cells."""
    module = "jumanji.environments.routing.lbf"
    generator = importlib.import_module(f"{module}.generator").RandomGenerator(
        grid_size=FLOOR, fov=SIGHT, num_agents=agents, num_food=max(2, agents // 4)
    )
    env = importlib.import_module(module).LevelBasedForaging(generator, grid_observation=True)
    return _jumanji(env, agents, batch, "all")


def _jumanji(env: Any, agents: int, batch: int, renew: str) -> System:
    """Return a batch with resets computed where needed: by ``each`` environment, or for ``all`` when one is done.

    Both are faster than Jumanji's own wrapper under vmap, which computes every reset at every step.
    """
    import jax
    import jax.numpy as jnp

    wrapper = importlib.import_module("jumanji.wrappers").AutoResetWrapper(env)

    def each(both):
        return jax.lax.cond(both[1].last(), wrapper._auto_reset, lambda *kept: kept, *both)

    def together(state, timestep):
        done, fresh = timestep.last(), jax.vmap(wrapper._auto_reset)(state, timestep)

        def merge(new, old):
            return jnp.where(done.reshape(-1, *[1] * (new.ndim - 1)), new, old)

        return jax.tree.map(merge, fresh, (state, timestep))

    def step(key, both):
        state, timestep = both
        action = legal_actions(key, timestep.observation.action_mask)
        both = jax.vmap(env.step)(state, action)
        if renew == "each":
            both = jax.lax.map(each, both)
        else:
            both = jax.lax.cond(jnp.any(both[1].last()), together, lambda *kept: kept, *both)
        return both, _total((both[1].observation.agents_view, both[1].reward))

    seen = jax.eval_shape(env.reset, jax.random.key(0))[1].observation.agents_view
    return _peer(env.reset, step, agents, batch, seen.size // agents)


def _simple_spread(agents: int, batch: int) -> System:
    """Return JaxMARL's particles, as many landmarks as agents."""
    import jax

    env = importlib.import_module("jaxmarl").make("MPE_simple_spread_v3", num_agents=agents, num_landmarks=agents)
    return _jaxmarl(env, lambda key, state: (jax.random.uniform(key, (batch, agents)) * 5).astype("int32"), batch)


def _smax(agents: int, batch: int) -> System:
    """Return JaxMARL's battle, half of the agents on each side, each told of all others."""
    import jax
    import jax.numpy as jnp

    env = importlib.import_module("jaxmarl").make("SMAX", num_allies=agents // 2, num_enemies=agents // 2)

    def actions(key, state):
        masks = jax.vmap(env.get_avail_actions)(state)
        return legal_actions(key, jnp.stack([masks[name] for name in env.agents], axis=1))

    return _jaxmarl(env, actions, batch)


def _jaxmarl(env: Any, actions: Callable, batch: int) -> System:
    import jax

    def step(key, state):
        own, world = jax.random.split(key)
        chosen = actions(own, state)
        named = {name: chosen[:, place] for place, name in enumerate(env.agents)}
        seen, state, rewards, _, _ = jax.vmap(env.step)(jax.random.split(world, batch), state, named)
        return state, _total((seen, rewards))

    seen, _ = jax.eval_shape(env.reset, jax.random.key(0))
    return _peer(lambda key: env.reset(key)[1], step, len(env.agents), batch, seen[env.agents[0]].size)


def _measure_numpy(task: dict[str, Any]) -> dict[str, Any]:
    """Time POGEMA's lifelong environment, which is not compiled."""
    import numpy as np

    pogema, agents = importlib.import_module("pogema"), task["agents"]
    config = pogema.GridConfig(
        num_agents=agents, size=FLOOR, density=0.3, obs_radius=SIGHT, on_target="restart", max_episode_steps=256, seed=0
    )
    env, generator = pogema.pogema_v0(grid_config=config), np.random.default_rng(0)
    seen, _ = env.reset()

    def call() -> float:
        for _ in range(STEPS):
            _, _, _, truncated, _ = env.step(generator.integers(0, 5, agents).tolist())
            if all(truncated):
                env.reset()
        return float(STEPS * agents)

    return {
        "compile_seconds": 0.0,
        "compile_wall_seconds": 0.0,
        **timed(call, task["seconds"]),
        "sees": int(np.asarray(seen[0]).size),
        "live_share": 1.0,
        "acting_share": 1.0,
        "versions": _versions(task["packages"]),
    }


SYSTEMS: dict[str, Callable[[int, int], System]] = {
    "warehouse": lambda agents, batch: _jaxmas("warehouse-medium-v0", agents, batch),
    "workflow": lambda agents, batch: _jaxmas("workflow-crowd-v0", agents, batch),
    "robot-warehouse": _robot_warehouse,
    "level-based-foraging": _level_based_foraging,
    "simple-spread": _simple_spread,
    "smax": _smax,
}


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
