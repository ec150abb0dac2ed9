"""Speed: how long a roll-out or a training loop takes to compile, and how many agent-steps it makes per second.

What is measured of a roll-out is a life of one query after another: plans, frozen executors, team observations and
resets included, every metric computed. An agent-step is one slot through one environment step, at work or not. A query
that is over waits for the next plan boundary, and those steps are computed like all others: ``live_share`` is the share
of the steps in which the query was under way, ``live_agent_steps_per_cpu_second`` counts these alone, and
``acting_share`` is the share of all agent-steps in which the slot had work.

What is measured of training is whole updates with the algorithm's own settings: roll-out, gathering of decisions,
losses, gradients, all passes. Queries of like length are played together, and only the steps up to the longest of them
are computed and counted. The roll-out is timed once more alone, so that the rest can be told from it.
"""

import dataclasses
import functools
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

import jaxmas
from jaxmas import anchors
from jaxmas.decisions import collector
from jaxmas.errors import JaxmasError, check_numbers, refuse
from jaxmas.groups import GroupSizes, play_groups
from jaxmas.headroom import World
from jaxmas.registry import STRATEGIES
from jaxmas.rollout import MetaStep, Policies, begin, play_on
from jaxmas.training import first_state, run_up_to
from jaxmas.types import MetaPolicy

TEAM_STRATEGY = "roles-by-skill-voting"
"""The strategy that is played where no anchor names the best; in families that lack it, the first of their own."""
FROZEN = "frozen-90"
FEWEST = 4
"""Plan intervals per timed call, so that it is long against its start."""
COUNTED = ("steps", "acting", "queries", "reward", "acting_agents", "metrics", "seen")
"""What is added up. ``metrics`` and ``seen`` are sums of all metrics and of all that the designer sees: no part of them
goes uncomputed, whatever the strategy looks at."""


@dataclasses.dataclass(frozen=True)
class BenchSettings:
    """How the measurement is made."""

    num_envs: int
    repeats: int = 7
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that measure nothing."""
        check_numbers("bench", self, ("num_envs", "repeats"), 1)


def default_envs(num_agents: int) -> int:
    """Return the number of environments that ranked measurements use: 256 at 16 agents, 16 at 256."""
    return max(1, 4096 // num_agents)


def team_strategy(scenario: str, env: Any) -> str:
    """Return the best hand-crafted strategy of the scenario's frozen anchor, if that is a team, else the usual one."""
    prefix = f"{scenario}/"
    named = [
        value["strategy"].get("name")
        for setting, value in anchors.frozen_anchors().items()
        if setting.startswith(prefix) and f"/agents={env.num_agents}/" in setting
    ]
    teams = [name for name in named if name and not name.startswith("single")]
    usual = [TEAM_STRATEGY] if TEAM_STRATEGY in STRATEGIES.names(env.family) else []
    own = [entry.name for entry in STRATEGIES if entry.family == env.family]
    return [*teams, *usual, *own, "random"][0]


def measure(scenario: str, world: World, strategy: str | None, settings: BenchSettings) -> dict[str, Any]:
    """Compile and time the roll-out of a strategy; see the module for what counts.

    A call plays as many plan intervals as a query has, but at least ``FEWEST``.
    """
    env, name = world.env, strategy or team_strategy(scenario, world.env)
    meta = jaxmas.make_strategy(name, env, world.params)
    first = jax.random.split(jax.random.key(settings.seed), settings.num_envs)
    episodes = _begin(env, world.params, meta, world.executor, first)
    arguments = (env, world.params, meta, world.executor, world.executor_params)
    keys = functools.partial(_keys, settings, max(FEWEST, env.horizon // env.coordination_interval))
    compiled, compile_cpu, compile_wall = _compile(arguments, episodes, keys(0))
    rows = []
    # The first call warms caches up and is left out.
    for repeat in range(settings.repeats + 1):
        now = jax.block_until_ready(keys(1 + repeat))
        cpu, wall = time.process_time(), time.perf_counter()
        episodes, totals = compiled(world.params, world.executor_params, episodes, now)
        jax.block_until_ready((episodes, totals))
        totals = dict(zip(COUNTED, map(float, totals), strict=True))
        rows.append((time.process_time() - cpu, time.perf_counter() - wall, totals))
    return _speeds(env, rows[1:], now.shape[:2]) | {
        "compile_seconds": compile_cpu,
        "compile_wall_seconds": compile_wall,
        "scenario": scenario,
        "strategy": name,
        "num_agents": env.num_agents,
        "num_envs": settings.num_envs,
        "horizon": env.horizon,
        "coordination_interval": env.coordination_interval,
        "num_tasks": env.plan_space.num_tasks,
        "repeats": settings.repeats,
        "device": f"{jax.devices()[0].platform}: {jax.devices()[0].device_kind}",
    }


def _speeds(env: Any, rows: list[tuple[float, float, dict[str, float]]], played: tuple[int, int]) -> dict[str, Any]:
    """Return medians over the repeats of so many intervals and environments, and what share of the steps did work."""
    env_steps = math.prod(played) * env.coordination_interval
    cpu, wall = statistics.median(row[0] for row in rows), statistics.median(row[1] for row in rows)
    total = {name: sum(row[2][name] for row in rows) for name in rows[0][2]}
    queries, live_share = max(total["queries"], 1.0), total["steps"] / (env_steps * len(rows))
    # A device's work costs this process no time of its own: its speed per CPU-second would be meaningless.
    per_cpu = env_steps * env.num_agents / cpu if jax.devices()[0].platform == "cpu" else None
    return {
        "env_steps_per_second": env_steps / wall,
        "agent_steps_per_second": env_steps * env.num_agents / wall,
        "agent_steps_per_cpu_second": per_cpu,
        "live_agent_steps_per_cpu_second": None if per_cpu is None else per_cpu * live_share,
        "queries_per_second": total["queries"] / len(rows) / wall,
        "live_share": live_share,
        "acting_share": total["acting"] / (env_steps * env.num_agents * len(rows)),
        "acting_agents_share": total["acting_agents"] / (queries * env.num_agents),
        "reward": total["reward"] / queries,
    }


def _compile(arguments: tuple, episodes: Any, keys: Key[Array, "intervals envs 2"]) -> tuple[Any, float, float]:
    """Compile the timed function; return it with its CPU and wall seconds."""
    env, params, meta, executor, executor_params = arguments
    run = functools.partial(_play, env, meta, executor)
    jax.block_until_ready(keys)
    try:
        return _compiled(jax.jit(run, donate_argnums=2).lower, params, executor_params, episodes, keys)
    except jax.errors.JaxRuntimeError as error:
        raise JaxmasError(f"bench: {str(error).splitlines()[0]}; try a smaller --num-envs") from error


def _compiled(lower: Any, *arguments: Any) -> tuple[Any, float, float]:
    """Compile what ``lower`` traces; a program out of a cache took no time to compile, so that none is used."""
    cached = jax.config.values["jax_enable_compilation_cache"]
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        cpu, wall = time.process_time(), time.perf_counter()
        compiled = lower(*arguments).compile()
        return compiled, time.process_time() - cpu, time.perf_counter() - wall
    finally:
        jax.config.update("jax_enable_compilation_cache", cached)


def _keys(settings: BenchSettings, intervals: int, repeat: int) -> Key[Array, "intervals envs 2"]:
    """Return for each plan interval and environment the keys of a reset and of the play."""
    shape = intervals, settings.num_envs, 2
    return jax.random.split(jax.random.fold_in(jax.random.key(settings.seed), repeat), shape)


@functools.partial(jax.jit, static_argnames=("env", "meta", "executor"))
def _begin(env: Any, params: Any, meta: MetaPolicy, executor: Any, keys: Any) -> Any:
    policies = Policies(meta, None, executor, None)
    return jax.vmap(lambda key: begin(env, params, policies, key))(keys)


def _play(
    env: Any,
    meta: MetaPolicy,
    executor: Any,
    params: Any,
    executor_params: Any,
    episodes: Any,
    keys: Key[Array, "intervals envs 2"],
) -> tuple[Any, Float[Array, "counted"]]:
    """Go on playing every episode for some plan intervals; count what happened."""
    policies = Policies(meta, None, executor, executor_params)
    play = jax.vmap(functools.partial(play_on, env, params, policies))

    def interval(episodes, keys):
        episodes, step, _ = play(episodes, keys)
        return episodes, jnp.sum(jax.vmap(_count)(step), axis=0)

    episodes, counts = jax.lax.scan(interval, episodes, keys)
    return episodes, jnp.sum(counts, axis=0)


def _count(step: MetaStep) -> Float[Array, "counted"]:
    """Return what an interval of one environment came to: metrics where a query ended."""
    done, team, metrics = step.terminated | step.truncated, step.next_team, step.metrics
    # What is seen after the interval, computed besides what is planned by; read by a product, as a network would.
    pairs = team.pair_features.reshape(len(team.agent_tokens), -1)
    pairs = pairs @ jnp.ones(pairs.shape[1])
    seen = sum(map(jnp.sum, (team.task_tokens, team.agent_tokens, pairs, team.global_features)))
    ended = (1, metrics.get("acting_agents", 0), sum(metrics.values()))
    queries, acting_agents, everything = (jnp.where(done, value, 0) for value in ended)
    counts = (step.steps, step.acting, queries, step.reward, acting_agents, everything, seen)
    return jnp.stack([jnp.float32(value) for value in counts])


UPDATES = 5
"""Updates per timed call."""


def measure_training(world: World, config: Any, start: Policies, *, repeats: int = 5, seed: int = 0) -> dict[str, Any]:
    """Compile and time whole updates, and the roll-outs in them alone; see the module for what counts."""
    refuse(repeats < 1, f"bench: repeats is {repeats}; it has to be at least 1")
    env, params = world.env, world.params
    state = first_state(config, env, params, jax.random.key(seed), start)
    train = functools.partial(run_up_to.lower, config, env, most=UPDATES)
    compiled, compile_cpu, compile_wall = _compiled(train, params, start, state, UPDATES)
    rollouts = _rollouts(world, config, start, state)
    whole, live = [], []
    played: dict[str, list[float]] = {name: [] for name in rollouts}
    for repeat in range(repeats + 1):
        began = time.process_time(), time.perf_counter()
        state, logs = jax.block_until_ready(compiled(params, start, state, UPDATES))
        whole.append(_since(began))
        live.append(float(jnp.sum(logs["steps"])))
        # In turn with whole updates, so that a busy moment of the machine weighs on both.
        keys = jax.block_until_ready(jax.random.split(jax.random.key(repeat), (UPDATES, 2)))
        for name, run in rollouts.items():
            began = time.process_time(), time.perf_counter()
            jax.block_until_ready(run(keys))
            played[name].append(_since(began)[0] / UPDATES)
    cpu, wall = (statistics.median(times) / UPDATES for times in zip(*whole[1:], strict=True))
    alone, gathered = (statistics.median(times[1:]) for times in (played["alone"], played["gathered"]))
    steps = computed_steps(env, params, config.sizes, jax.random.key(seed))
    return {
        "compile_seconds": compile_cpu,
        "compile_wall_seconds": compile_wall,
        "agent_steps_per_cpu_second": steps * env.num_agents / cpu,
        "agent_steps_per_second": steps * env.num_agents / wall,
        "live_agent_steps_per_cpu_second": statistics.median(live[1:]) / UPDATES * env.num_agents / cpu,
        "updates_per_cpu_second": 1 / cpu,
        "rollout_share": alone / cpu,
        "gather_share": max(gathered - alone, 0.0) / cpu,
        "learning_share": max(cpu - max(gathered, alone), 0.0) / cpu,
        "num_agents": env.num_agents,
        "num_envs": config.sizes.queries * config.sizes.designs * config.sizes.executions,
        "horizon": env.horizon,
        "repeats": repeats,
        "device": f"{jax.devices()[0].platform}: {jax.devices()[0].device_kind}",
    }


def _since(began: tuple[float, float]) -> tuple[float, float]:
    return time.process_time() - began[0], time.perf_counter() - began[1]


def _rollouts(world: World, config: Any, start: Policies, state: Any) -> dict[str, Callable[[Any], Any]]:
    """Return what plays the roll-outs of ``UPDATES`` updates: alone, and with the decisions that executors learn from.

    Without executors that learn there is nothing to gather, and the two are one.
    """
    env, params = world.env, world.params
    designer, executor = config.designer(env, state), config.executor(env, state)
    meta, meta_params = designer if designer else (start.meta, start.meta_params)
    policies = Policies(meta, meta_params, *(executor or (start.executor, start.executor_params)))

    def play(params, policies, keys, collect=None):
        played = play_groups(env, params, policies, keys[0], keys[1], config.sizes, collect=collect)
        return [jnp.sum(jnp.nan_to_num(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(played)]

    def run(collect):
        def every(params, policies, keys):
            return jax.lax.map(functools.partial(play, params, policies, collect=collect), keys)

        return functools.partial(jax.jit(every), params, policies)

    alone = run(None)
    return {"alone": alone, "gathered": alone if executor is None else run(collector(config, executor[0]))}


def computed_steps(env: Any, params: Any, sizes: GroupSizes, key: Any, draws: int = 32) -> float:
    """Return the environment steps that an update computes on average: each part of it up to its longest query."""
    keys = jax.random.split(key, (draws, sizes.queries))
    lengths = jax.jit(jax.vmap(jax.vmap(lambda key: env.steps_left(env.reset(key, params)[0]))))(keys)
    longest = jnp.max(jnp.sort(lengths, axis=1).reshape(draws, sizes.parts, -1), axis=-1)
    plays = sizes.queries // sizes.parts * sizes.designs * sizes.executions
    return float(jnp.mean(jnp.sum(longest, axis=-1))) * plays
