"""Check what every registered scenario, strategy and executor promises, and the roll-outs against plain loops."""

import collections
import dataclasses
import functools
import operator
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.core import Tracer

import jaxmas
from jaxmas.catalog import EXECUTORS, SCENARIOS, STRATEGIES, TEMPLATES
from jaxmas.environments.probes import ActExecutor
from jaxmas.environments.signals import Signal
from jaxmas.plans import PLAN_FIELDS, Plan, PlanSpace
from jaxmas.policies import TemplatePolicy
from jaxmas.pytrees import pytree
from jaxmas.rollout import Policies, begin, play_on, play_query
from jaxmas.types import Environment, Executor, MetaPolicy, Observation, TeamObservation, TimeStep

NAMES = [entry.name for entry in SCENARIOS]
SAME_AT_SIZE = ("warehouse-medium-v0", "warehouse-large-v0", "warehouse-map-v0")
"""Scenarios that differ from another one in size or map alone: the fast tests leave them out."""


def marked(*values: Any) -> Any:
    """Return a test's parameters, slow ones where their scenario is the same as another one but for its size."""
    return pytest.param(*values, marks=pytest.mark.slow if values[0] in SAME_AT_SIZE else ())


scenarios = pytest.mark.parametrize("name", [marked(name) for name in NAMES])

# --- one compiled function per method and environment, which counts how often it is traced

METHODS = ("reset", "reseed", "coordinate", "step", "is_over", "steps_left", "observe_team")
TRACES: collections.Counter = collections.Counter()


@functools.cache
def method(name: str):
    def call(env, *arguments):
        TRACES[name, env] += 1
        return getattr(env, name)(*arguments)

    return jax.jit(call, static_argnums=0)


@functools.cache
def make(name: str, most: int = 8):
    """Return a scenario at a small size."""
    return jaxmas.make(name, num_agents=min(SCENARIOS[name].num_agents, most))


def struct(tree: Any) -> Any:
    """Return what has to stay the same under ``scan``: the tree, and every leaf's shape and type."""
    return jax.tree.structure(tree), [(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in jax.tree.leaves(tree)]


def same(one: Any, other: Any) -> bool:
    return struct(one) == struct(other) and all(map(np.array_equal, jax.tree.leaves(one), jax.tree.leaves(other)))


def near(one: Any, other: Any) -> bool:
    """Return whether two trees agree: integers to the bit, floats up to the order of additions."""
    if struct(one) != struct(other):
        return False
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.allclose(a, b, 1e-5, 1e-6) if a.dtype.kind == "f" else np.array_equal(a, b) for a, b in pairs)


def finite(tree: Any) -> bool:
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating))


def junk_plan(space: PlanSpace, seed: int) -> Plan:
    """Return integers from everywhere."""
    rng = np.random.default_rng(seed)

    def anything(leaf):
        if leaf.dtype == bool:
            return jnp.asarray(rng.random(leaf.shape) < 0.5)
        return jnp.asarray(rng.choice([-(2**31), -3, -1, 0, 1, 2, 5, 999, 2**31 - 1], leaf.shape), jnp.int32)

    return jax.tree.map(anything, space.empty())


class Played(NamedTuple):
    """A game under a random plan and random actions, three steps longer than the horizon."""

    states: list
    """After reset, after coordination, after every step."""
    teams: list
    first: Observation
    timesteps: list[TimeStep]
    over: list[bool]


@functools.cache
def game(name: str, seed: int = 0) -> Played:
    env, params = make(name)
    rng = np.random.default_rng(seed)
    state, team = method("reset")(env, jax.random.key(seed), params)
    states, teams, timesteps, over, first = [state], [team], [], [], None
    for step in range(env.horizon + 3):
        if step % env.coordination_interval == 0:
            plan = env.plan_space.sample(jax.random.key(100 * seed + step))
            state, observation = method("coordinate")(env, jax.random.key(1), state, plan, params)
            states.append(state)
            first = first or observation
        actions = jnp.asarray(rng.integers(0, env.num_actions, env.num_agents), jnp.int32)
        state, timestep = method("step")(env, jax.random.key(step), state, actions, params)
        states.append(state)
        timesteps.append(timestep)
        over.append(bool(method("is_over")(env, state)))
        teams.append(method("observe_team")(env, state, params))
    assert first is not None
    return Played(states, teams, first, timesteps, over)


# --- scenarios


@scenarios
def test_shapes_and_dtypes_are_stable(name: str) -> None:
    env, params = make(name)
    played = game(name)
    assert all(struct(state) == struct(played.states[0]) for state in played.states)
    assert all(struct(team) == struct(played.teams[0]) for team in played.teams)
    assert all(struct(timestep) == struct(played.timesteps[0]) for timestep in played.timesteps)
    assert struct(played.timesteps[0].observation) == struct(played.first)
    actions = jnp.zeros(env.num_agents, jnp.int32)

    def step(state, _):
        return env.step(jax.random.key(0), state, actions, params)

    jax.eval_shape(lambda state: jax.lax.scan(step, state, None, 2), played.states[0])  # weak types would be refused


@scenarios
def test_episodes_are_over_when_no_steps_are_left(name: str) -> None:
    env, _ = make(name)
    played = game(name)
    left = int(method("steps_left")(env, played.states[0]))
    assert 0 < left <= env.horizon
    assert played.over[left - 1]
    later = int(method("steps_left")(env, played.states[2]))  # after the first plan and step
    assert 0 <= later <= env.horizon
    assert played.over[later]


@scenarios
def test_sizes_are_those_of_the_plan_space(name: str) -> None:
    env, _ = make(name)
    space, n = env.plan_space, env.num_agents
    timestep, team = game(name).timesteps[0], game(name).teams[0]
    assert space.num_agents == n and set(space.fields) <= set(PLAN_FIELDS)
    assert timestep.observation.action_mask.shape == (n, env.num_actions)
    assert timestep.observation.features.shape[0] == n
    assert timestep.reward.shape == () and timestep.reward.dtype == jnp.float32
    assert timestep.agent_reward.shape == (n,)
    assert timestep.terminated.dtype == timestep.truncated.dtype == bool
    assert team.task_tokens.shape[0] == team.task_mask.shape[0] == space.num_tasks
    assert team.agent_tokens.shape[0] == team.agent_mask.shape[0] == n
    assert team.pair_features.shape[:2] == (n, space.num_tasks)
    names = getattr(env, "global_feature_names", None)
    assert names is None or len(names) == team.global_features.shape[0]
    assert env.horizon % env.coordination_interval == 0


@scenarios
def test_everything_is_finite(name: str) -> None:
    assert finite(make(name)[1])
    for seed in range(3):
        played = game(name, seed)
        assert finite((played.states, played.teams, played.first, played.timesteps))


@scenarios
def test_the_end(name: str) -> None:
    """An episode ends within its horizon; from then on it stays as it is and pays nothing."""
    env, params = make(name)
    for seed in range(3):
        played = game(name, seed)
        assert env.horizon <= len(played.over) - 3 and played.over[env.horizon - 1]
        last = played.over.index(True)
        assert played.over == [step >= last for step in range(len(played.over))]
        for step, timestep in enumerate(played.timesteps):
            ended = bool(timestep.terminated) or bool(timestep.truncated)
            assert ended == played.over[step]
            assert not (bool(timestep.terminated) and bool(timestep.truncated))
            if step > last:
                assert timestep.reward == 0 and not timestep.agent_reward.any()
                assert same(timestep.metrics, played.timesteps[last].metrics)
                assert not timestep.observation.acting.any()
        for after in (1, 2):
            assert same(played.states[-after], played.states[-after - 1])
        # Another plan changes nothing either.
        plan = env.plan_space.sample(jax.random.key(77 + seed))
        state, observation = method("coordinate")(env, jax.random.key(5), played.states[-1], plan, params)
        assert not observation.acting.any()
        state, timestep = method("step")(env, jax.random.key(6), state, jnp.zeros(env.num_agents, jnp.int32), params)
        assert timestep.reward == 0 and method("is_over")(env, state)
        assert same(timestep.metrics, played.timesteps[-1].metrics)


@scenarios
def test_nothing_is_over_at_the_start(name: str) -> None:
    env, _ = make(name)
    assert not method("is_over")(env, game(name).states[0])
    assert not method("is_over")(env, game(name).states[1])


@scenarios
def test_metrics_are_fixed_scalars(name: str) -> None:
    keys = {tuple(sorted(timestep.metrics)) for seed in range(3) for timestep in game(name, seed).timesteps}
    assert len(keys) == 1
    assert {"success", "cost"} <= set(next(iter(keys)))  # what evaluation and reports read
    assert all(value.shape == () for value in game(name).timesteps[-1].metrics.values())


@scenarios
def test_reseeding_keeps_the_query_and_what_the_designer_sees(name: str) -> None:
    env, params = make(name)
    state, team = method("reset")(env, jax.random.key(3), params)
    again = method("reseed")(env, jax.random.key(4), state, params)
    assert struct(again) == struct(state)
    assert same(method("observe_team")(env, again, params), team)
    if hasattr(state, "query"):
        assert same(again.query, state.query)
        assert not same(again, state)  # the noise is new
        assert same(again, method("reseed")(env, jax.random.key(4), state, params))


@scenarios
def test_any_integers_are_a_plan(name: str) -> None:
    env, params = make(name)
    space = env.plan_space
    project = jax.jit(space.project)
    state, _ = method("reset")(env, jax.random.key(0), params)
    for seed in range(4):
        plan, violations = project(junk_plan(space, seed))
        assert violations > 0
        again, violations = project(plan)
        assert violations == 0 and same(again, plan)
        assert struct(plan) == struct(space.empty())
        accepted, observation = method("coordinate")(env, jax.random.key(0), state, junk_plan(space, seed), params)
        assert finite((accepted, observation)) and struct(accepted) == struct(state)
    plans = [space.sample(jax.random.key(seed)) for seed in range(8)]
    assert all(int(project(plan)[1]) == 0 for plan in plans)
    assert space == make(name)[0].plan_space and hash(space) == hash(make(name)[0].plan_space)


@scenarios
def test_the_designers_reset_is_what_it_sees(name: str) -> None:
    env, params = make(name)
    state, team = method("reset")(env, jax.random.key(8), params)
    assert same(method("observe_team")(env, state, params), team)


SLOW_UNCOMPILED = ("workflow-crowd-v0", "workflow-pool-v0")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW_UNCOMPILED + SAME_AT_SIZE else ()) for name in NAMES],
)
def test_jit_equals_eager(name: str) -> None:
    env, params = make(name)
    played = game(name)
    actions = jnp.asarray(np.random.default_rng(0).integers(0, env.num_actions, env.num_agents), jnp.int32)
    state, timestep = env.step(jax.random.key(0), played.states[1], actions, params)
    assert near((state, timestep), (played.states[2], played.timesteps[0]))


@functools.cache
def many(env):
    """Return the compiled function that starts, coordinates and steps a batch of episodes."""

    def one(key, plan, actions, params):
        start, team = env.reset(key, params)
        state, observation = env.coordinate(key, start, plan, params)
        state, timestep = env.step(key, state, actions, params)
        return start, team, observation, state, timestep

    return jax.jit(jax.vmap(one, in_axes=(0, 0, 0, None)))


BATCH = 32


@functools.cache
def batch(name: str):
    env, params = make(name)
    keys = jax.random.split(jax.random.key(0), BATCH)
    plans = jax.vmap(env.plan_space.sample)(jax.random.split(jax.random.key(1), BATCH))
    actions = jnp.asarray(np.random.default_rng(0).integers(0, env.num_actions, (BATCH, env.num_agents)), jnp.int32)
    return keys, plans, actions, many(env)(keys, plans, actions, params)


@scenarios
def test_vmap_equals_a_loop(name: str) -> None:
    env, params = make(name)
    keys, plans, actions, result = batch(name)
    for place in range(4):
        plan = jax.tree.map(lambda leaf, place=place: leaf[place], plans)
        start, team = method("reset")(env, keys[place], params)
        state, observation = method("coordinate")(env, keys[place], start, plan, params)
        state, timestep = method("step")(env, keys[place], state, actions[place], params)
        row = jax.tree.map(lambda leaf, place=place: leaf[place], result)
        assert near(row, (start, team, observation, state, timestep))


@scenarios
def test_distinct_keys_give_distinct_queries(name: str) -> None:
    env, params = make(name)
    start, team = batch(name)[3][:2]
    drawn = start.query if hasattr(start, "query") else start
    rows = np.concatenate([np.asarray(leaf).reshape(BATCH, -1) for leaf in jax.tree.leaves(drawn)], axis=1)
    distinct = len(np.unique(rows, axis=0))
    if isinstance(env, Signal):
        known = env.contexts * env.symbols**env.num_agents
        assert min(known, 24) <= distinct <= known  # 32 draws of 256 are 30 on average
    else:
        assert distinct == (BATCH if env.family != "probe" else 2)  # a probe knows two queries
    state, team = method("reset")(env, jax.random.key(11), params)
    assert same(method("reset")(env, jax.random.key(11), params), (state, team))


@scenarios
def test_an_environment_is_a_static_argument(name: str) -> None:
    env, _ = make(name)
    again, _ = jaxmas.make(name, num_agents=env.num_agents)
    assert isinstance(env, Environment)
    assert env == again and hash(env) == hash(again)
    other, _ = jaxmas.make(name, num_agents=env.num_agents + 1)
    assert other != env and other.plan_space.num_agents == env.num_agents + 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        env.num_agents = 3  # type: ignore[misc]


@scenarios
def test_one_trace_per_function(name: str) -> None:
    """Other keys, plans, actions and numbers of the same sizes never compile again."""
    game(name)
    env, params = jaxmas.make(name, num_agents=make(name)[0].num_agents)
    params = jax.tree.map(lambda leaf: leaf + jnp.zeros_like(leaf), params)
    state, _ = method("reset")(env, jax.random.key(21), params)
    state = method("reseed")(env, jax.random.key(22), state, params)
    for seed in range(2):
        plan = env.plan_space.sample(jax.random.key(seed))
        state, _ = method("coordinate")(env, jax.random.key(23), state, plan, params)
        actions = jnp.full(env.num_agents, seed % env.num_actions, jnp.int32)
        state, _ = method("step")(env, jax.random.key(24), state, actions, params)
        method("is_over")(env, state)
        method("steps_left")(env, state)
        method("observe_team")(env, state, params)
    assert {name: TRACES[name, env] for name in METHODS} == dict.fromkeys(METHODS, 1)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("workflow")])
def test_wrong_sizes_are_one_clear_error(name: str) -> None:
    for sizes in ({"num_agents": 0}, {"num_agents": -3}, {"coordination_interval": 7}, {"wings": 2}):
        with pytest.raises(jaxmas.JaxmasError) as caught:
            jaxmas.make(name, **sizes)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "interval"),
    [
        ("workflow-mixed-v0", 0),
        ("probe-delayed-v0", 2),
        ("probe-delayed-v0", 3),
        ("signal-memory-v0", 1),
        ("signal-memory-v0", 2),
        ("signal-memory-v0", 3),
    ],
)
def test_an_interval_is_kept_or_refused(name: str, interval: int) -> None:
    try:
        env, _ = jaxmas.make(name, coordination_interval=interval)
    except jaxmas.JaxmasError:
        return
    assert env.coordination_interval == interval


def test_unknown_names_are_corrected() -> None:
    with pytest.raises(jaxmas.JaxmasError, match="did you mean 'workflow-mixed-v0'"):
        jaxmas.make("workflow-mixd-v0")
    env, params = make("probe-bandit-v0")
    with pytest.raises(jaxmas.JaxmasError, match="did you mean 'chain'"):
        jaxmas.make_strategy("chian", env)
    with pytest.raises(jaxmas.JaxmasError, match="unknown executor 'nobody'"):
        jaxmas.load_executor("nobody", env, params)


# --- strategies


@functools.cache
def planner(env, meta):
    """Return the compiled function from query keys to a meta-policy's plans and their violations."""

    def plan(key, params, meta_params):
        reset_key, plan_key = jax.random.split(key)
        team = env.reset(reset_key, params)[1]
        plan, _, info = meta.apply(meta_params, meta.init(), team, plan_key)
        assert isinstance(info, dict)
        return plan, env.plan_space.project(plan)

    return jax.jit(jax.vmap(plan, in_axes=(0, None, None)))


SIZES = [("workflow-mixed-v0", 1), ("workflow-mixed-v0", 16)]
SIZES += [(entry.name, 8) for entry in SCENARIOS if STRATEGIES.names(entry.family)]


@pytest.mark.parametrize(("name", "agents"), [marked(*size) for size in SIZES])
def test_strategies_give_legal_plans(name: str, agents: int) -> None:
    """One function per environment: a strategy's row is an argument of the policy that builds rows."""
    env, params = jaxmas.make(name, num_agents=agents)
    keys = jax.random.split(jax.random.key(0), 16)
    for strategy in STRATEGIES.names(env.family):
        meta = jaxmas.make_strategy(strategy, env)
        assert isinstance(meta, MetaPolicy)
        row = getattr(meta, "row", None)
        if isinstance(meta, TemplatePolicy) and row is not None:
            plans, (again, violations) = planner(env, TemplatePolicy(env))(keys, params, TEMPLATES[env.family].row(row))
        else:
            plans, (again, violations) = planner(env, meta)(keys, params, None)
        assert not violations.any(), strategy
        assert same(again, plans), strategy
        assert plans.active.any(axis=1).all()
        assert struct(jax.tree.map(lambda leaf: leaf[0], plans)) == struct(env.plan_space.empty())


# --- executors


HOSTS = ("workflow-mixed-v0", "workflow-pool-v0", "workflow-longchain-v0", "warehouse-small-v0")
HOSTS += ("warehouse-problem-v0", "probe-bandit-v0", "signal-cue-v0")
MEETINGS = [
    (name, entry.name) for name in HOSTS for entry in EXECUTORS if entry.family in ("", SCENARIOS.entry(name).family)
]


@pytest.mark.parametrize(("name", "executor"), MEETINGS)
def test_executors_give_distributions(name: str, executor: str) -> None:
    env, params = make(name)
    policy, weights = jaxmas.load_executor(executor, env, params)
    assert isinstance(policy, Executor)
    assert hash(policy) == hash(jaxmas.load_executor(executor, env, params)[0])
    observation = game(name).first
    mask = observation.action_mask.at[0, 1:].set(False) if env.num_actions > 1 else observation.action_mask
    observation = dataclasses.replace(observation, action_mask=mask)
    carry = policy.init(env.num_agents)
    after, distribution = policy.apply(weights, carry, observation, observation.acting, jax.random.key(0))
    assert struct(after) == struct(carry)
    probs = np.asarray(jax.nn.softmax(distribution.logits))
    assert probs.shape == (env.num_agents, env.num_actions)
    assert np.allclose(probs.sum(1), 1, atol=1e-5) and (probs >= 0).all()
    log_prob = np.stack([distribution.log_prob(jnp.full(env.num_agents, a)) for a in range(env.num_actions)], axis=1)
    assert np.allclose(np.exp(log_prob).sum(1), 1, atol=1e-5)
    if "frozen" in executor:
        assert probs[0, 0] > 0.999  # the only legal action


def test_every_executor_is_checked_here() -> None:
    assert {executor for _, executor in MEETINGS} == set(EXECUTORS.names())


def test_every_scenario_names_an_executor_that_fits() -> None:
    for name in NAMES:
        env, params = make(name)
        entry = EXECUTORS.entry(SCENARIOS[name].executor)
        assert entry.family in ("", env.family)
        entry.value(env, params)


# --- roll-outs of a query, against a loop


def loop(env: Any, params, policies: Policies, state, gamma: float) -> list[dict[str, Any]]:
    """Play a query in plain Python; return one row per plan boundary. Keys do not matter to who plays here.

    The methods are those of the environment without an interval of its own: it means nothing to a single step.
    """
    rows, key, usual = [], jax.random.key(0), dataclasses.replace(env, coordination_interval=env.horizon)
    plan_for = jax.jit(lambda team: policies.meta.apply(policies.meta_params, (), team, key)[0])
    act = jax.jit(lambda seen: policies.executor.apply(policies.executor_params, (), seen, seen.acting, key)[1].mode())
    for _ in range(env.horizon // env.coordination_interval):
        plan = plan_for(method("observe_team")(usual, state, params))
        state, observation = method("coordinate")(usual, key, state, plan, params)
        reward, lived, acting = 0.0, 0, 0
        for step in range(env.coordination_interval):
            ended = bool(method("is_over")(usual, state))
            acting += int(observation.acting.sum())
            state, timestep = method("step")(usual, key, state, act(observation).astype(jnp.int32), params)
            observation = timestep.observation
            assert not (ended and timestep.reward != 0)
            reward, lived = reward + gamma**step * float(timestep.reward), lived + (not ended)
        discount = 0.0 if timestep.terminated else gamma**lived
        row = {"reward": reward, "steps": lived, "acting": acting, "discount": discount}
        rows.append(row | {name: float(value) for name, value in timestep.metrics.items()})
    return rows


@pytest.mark.parametrize(
    ("name", "interval", "executor", "row"),
    [("workflow-mixed-v0", 3, "scripted", (7, 1, 1, 1, 1, 1, 1)), ("probe-delayed-v0", 1, "act", (1,))],
)
def test_play_query_equals_a_loop(name: str, interval: int, executor: str, row: tuple[int, ...]) -> None:
    """A strategy and the exact rule leave nothing to chance but the query and its noise, which the state holds."""
    usual, params = make(name)
    env = dataclasses.replace(usual, coordination_interval=interval)  # type: ignore[type-var]
    intervals, gamma = env.horizon // env.coordination_interval, 0.9
    policy, weights = jaxmas.load_executor(executor, env, params)
    policies = Policies(TemplatePolicy(env), TEMPLATES[env.family].row(row), policy, weights)

    @jax.jit
    def play(key):
        begin_key, play_key = jax.random.split(key)
        episode = begin(env, params, policies, begin_key)
        whole = play_query(env, params, policies, episode, play_key, discount=gamma, keep_steps=True)
        left = env.steps_left(episode.state)
        limited = play_query(env, params, policies, episode, play_key, discount=gamma, limit=left, keep_steps=True)
        return episode, *whole, limited[1:]

    lasted, to_the_end = set(), 0
    for seed in range(6):
        start, end, meta_steps, steps, limited = play(jax.random.key(seed))
        assert near(limited[0], meta_steps)  # steps beyond the limit change nothing
        assert near(*(jax.tree.map(operator.itemgetter(kept.live), kept) for kept in (limited[1], steps)))
        assert not limited[1].mask[~limited[1].live].any()
        rows = loop(env, params, policies, start.state, gamma)
        measured = {name: getattr(meta_steps, name) for name in ("reward", "steps", "acting", "discount")}
        measured |= meta_steps.metrics
        for field in rows[0]:
            assert np.allclose(measured[field], [one[field] for one in rows], atol=1e-5), field
        after = jax.tree.map(lambda leaf: leaf[-1], meta_steps.next_team)
        assert near(after, env.observe_team(end.state, params))
        later = jax.tree.map(lambda leaf: leaf[1:], meta_steps.team)
        assert near(later, jax.tree.map(lambda leaf: leaf[:-1], meta_steps.next_team))
        assert steps is not None and steps.action.shape == (intervals, env.coordination_interval, env.num_agents)
        live = np.asarray(steps.live).ravel()
        assert live.sum() == meta_steps.steps.sum() and (np.diff(live.astype(int)) <= 0).all()
        assert not steps.mask[~steps.live].any()
        assert meta_steps.terminated[-1] or meta_steps.truncated[-1]
        lasted.add(int(live.sum()))
        to_the_end += int(live.sum()) == int(env.steps_left(start.state))
    assert len(lasted) > 1 or env.family == "probe"  # some ended early
    assert to_the_end > 0  # and the limit was put to the test


# --- lifelong roll-outs, on a clock whose every number can be worked out by hand


@pytree
class ClockState:
    step: jax.Array
    end: jax.Array
    terminates: jax.Array
    name: jax.Array
    """A random number per episode, which tells resets apart."""


@dataclasses.dataclass(frozen=True)
class Clock(Environment):
    """Pays its step number plus one; ends after a given number of steps, by termination or by truncation."""

    family: ClassVar[str] = "clock"
    num_agents: int = 1
    horizon: int = 9
    coordination_interval: int = 3

    @property
    def plan_space(self) -> PlanSpace:
        return PlanSpace(1, 1, 1, 1, 1, 1)

    @property
    def num_actions(self) -> int:
        return 1

    def reset(self, key, params):
        ends, terminates = params
        draw = jax.random.uniform(key)
        place = (draw * len(ends)).astype(jnp.int32)
        state = ClockState(jnp.int32(0), ends[place], terminates[place], draw)
        return state, self.observe_team(state, params)

    def reseed(self, key, state, params):
        return state

    def coordinate(self, key, state, plan, params):
        return state, self._observe(state)

    def step(self, key, state, actions, params):
        over = self.is_over(state)
        reward = jnp.where(over, 0.0, state.step + 1.0)
        state = dataclasses.replace(state, step=state.step + ~over)
        now = self.is_over(state)
        metrics = {"success": now.astype(jnp.float32), "cost": state.step.astype(jnp.float32)}
        ended = now & state.terminates, now & ~state.terminates
        return state, TimeStep(self._observe(state), reward, jnp.zeros(1), *ended, metrics)

    def is_over(self, state):
        return state.step >= state.end

    def observe_team(self, state, params):
        one, none = jnp.ones(1, bool), jnp.zeros((1, 1))
        features = jnp.stack([state.name, state.step.astype(jnp.float32)])
        parents = jnp.zeros((1, 0), jnp.int32)
        return TeamObservation(none, one, parents, none, one, jnp.zeros((1, 1, 0)), features)

    def _observe(self, state):
        zero = jnp.zeros(1, jnp.int32)
        return Observation(jnp.zeros((1, 1)), zero, zero, jnp.ones((1, 1), bool), ~self.is_over(state)[None])


@dataclasses.dataclass(frozen=True)
class Counting:
    """Gives the empty plan and counts, in its carry, how often it was asked since the start."""

    def init(self):
        return jnp.int32(0)

    def apply(self, params, carry, team, key):
        plan = Clock().plan_space.project(Clock().plan_space.empty())[0]
        return plan, carry + 1, {"asked": carry}


GAMMA, INTERVALS = 0.5, 40
ENDS = (1, 2, 3, 4, 5, 7, 9)


@pytest.fixture(scope="module", params=[True, False], ids=["terminates", "truncates"])
def lifelong(request):
    env = Clock()
    params = jnp.array(ENDS), jnp.full(len(ENDS), request.param)

    @jax.jit
    def play(key, params):
        policies = Policies(Counting(), None, ActExecutor(), None)
        episode = begin(env, params, policies, jax.random.key(5))

        def interval(episode, keys):
            episode, step, _ = play_on(env, params, policies, episode, keys, discount=GAMMA)
            return episode, step

        return jax.lax.scan(interval, episode, jax.random.split(key, (INTERVALS, 2)))[1]

    return request.param, jax.tree.map(np.asarray, play(jax.random.key(0), params))


def test_lifelong_resets_at_plan_boundaries_only(lifelong) -> None:
    _, steps = lifelong
    name, time = steps.team.global_features.T
    name_after, time_after = steps.next_team.global_features.T
    done = steps.terminated | steps.truncated
    assert 5 < done.sum() < INTERVALS - 5
    assert (name == name_after).all()  # what follows is seen before any reset …
    assert (time_after == time + steps.steps).all()
    ends = np.array(ENDS)[(name * len(ENDS)).astype(int)]
    assert (done == (time_after == ends)).all()
    assert (steps.steps == np.minimum(3, ends - time)).all()
    fresh = done[:-1]
    assert (time[1:][fresh] == 0).all() and (name[1:][fresh] != name[:-1][fresh]).all()  # … and then comes a new one
    assert (time[1:][~fresh] == time_after[:-1][~fresh]).all() and (name[1:][~fresh] == name[:-1][~fresh]).all()
    assert set(ends.tolist()) == set(ENDS)  # ends in the middle, at and after a boundary


def test_carries_clear_at_resets_and_survive_plans(lifelong) -> None:
    _, steps = lifelong
    assert (steps.info["asked"] == steps.team.global_features[:, 1] / 3).all()
    assert steps.info["asked"].max() == 2


def test_semi_markov_rewards_and_discounts(lifelong) -> None:
    terminates, steps = lifelong
    time = steps.team.global_features[:, 1]
    for place in range(INTERVALS):
        lived = int(steps.steps[place])
        reward = sum(GAMMA**i * (time[place] + i + 1) for i in range(lived))
        assert steps.reward[place] == pytest.approx(reward)
        done = bool(steps.terminated[place] or steps.truncated[place])
        assert bool(steps.terminated[place]) == (done and terminates)
        assert steps.discount[place] == pytest.approx(0 if done and terminates else GAMMA**lived)
        assert steps.metrics["cost"][place] == time[place] + lived
        assert steps.acting[place] == lived


# --- keys


@pytest.fixture(scope="module")
def given_keys():
    """Play a query uncompiled and note every key that is used up: by whom, and which."""
    given: dict[str, list[tuple[int, ...]]] = collections.defaultdict(list)

    def note(who: str, key) -> None:
        if not isinstance(key, Tracer):  # a step that is only traced uses nothing up
            given[who].append(tuple(np.asarray(jax.random.key_data(key)).tolist()))

    class NotingMeta(Counting):
        def apply(self, params, carry, team, key):
            note("plan", key)
            return super().apply(params, carry, team, key)

    class NotingExecutor(ActExecutor):
        def apply(self, params, carry, observation, mask, key):
            note("executor", key)
            return super().apply(params, carry, observation, mask, key)

    class NotingClock(Clock):
        def coordinate(self, key, state, plan, params):
            note("coordinate", key)
            return super().coordinate(key, state, plan, params)

        def step(self, key, state, actions, params):
            note("step", key)
            return super().step(key, state, actions, params)

    env, params = NotingClock(horizon=8, coordination_interval=2), (jnp.array([8]), jnp.array([True]))
    policies = Policies(NotingMeta(), None, NotingExecutor(), None)
    real = jax.random.uniform

    def uniform(key, *rest, **options):
        note("act", key)
        return real(key, *rest, **options)

    with pytest.MonkeyPatch.context() as patch, jax.disable_jit():
        episode = begin(env, params, policies, jax.random.key(0))
        patch.setattr(jax.random, "uniform", uniform)
        play_query(env, params, policies, episode, jax.random.key(3))
    return given


def test_every_use_of_chance_has_fresh_keys(given_keys) -> None:
    assert {who: len(keys) for who, keys in given_keys.items()} == {
        "plan": 4, "coordinate": 4, "act": 4, "executor": 8, "step": 8
    }  # fmt: skip
    for who, keys in given_keys.items():
        assert len(set(keys)) == len(keys), who


def test_plans_share_no_key_with_anyone_else(given_keys) -> None:
    others = {key for who, keys in given_keys.items() if who != "plan" for key in keys}
    assert not others & set(given_keys["plan"])


def test_executor_and_environment_share_no_key(given_keys) -> None:
    assert not set(given_keys["executor"]) & set(given_keys["step"])
