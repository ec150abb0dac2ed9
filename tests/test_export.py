"""Check that environment steps, roll-outs and learner updates lower for every platform, and come back the same."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import jaxmas
from jaxmas.algorithms.meta_skill import MetaSkillConfig
from jaxmas.catalog import ALGORITHMS, SCENARIOS, TEMPLATES
from jaxmas.policies import TemplatePolicy
from jaxmas.rollout import Policies, begin, play_query
from jaxmas.training import run_up_to

PLATFORMS = ("cpu", "cuda", "tpu")


def is_key(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key)


def bare(tree: Any) -> list[Any]:
    """Return a tree's leaves, the words of typed keys in their place: what a serialised function can take and give."""

    def plain(leaf):
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jax.eval_shape(jax.random.key_data, leaf) if is_key(leaf) else leaf
        return jax.random.key_data(leaf) if is_key(leaf) else jnp.asarray(leaf)

    return [plain(leaf) for leaf in jax.tree.leaves(tree)]


def exported(function: Callable, *arguments: Any) -> tuple[export.Exported, list[Any]]:
    """Lower a function of any trees, or of their shapes, for all platforms; also return its bare arguments."""
    leaves, tree = jax.tree.flatten(arguments)
    keys = [is_key(leaf) for leaf in leaves]

    def call(*words):
        given = [jax.random.wrap_key_data(word) if key else word for word, key in zip(words, keys, strict=True)]
        return bare(function(*jax.tree.unflatten(tree, given)))

    inputs = bare(arguments)
    return export.export(jax.jit(call), platforms=PLATFORMS)(*inputs), inputs


def check(lowered: export.Exported) -> None:
    assert tuple(lowered.platforms) == PLATFORMS
    assert not lowered.disabled_safety_checks
    assert "callback" not in lowered.mlir_module()  # nothing goes back to the host


def unequal(one: Any, other: Any) -> list[int]:
    return [place for place, (a, b) in enumerate(zip(one, other, strict=True)) if not np.array_equal(a, b)]


@functools.cache
def world(name: str, agents: int):
    """Return an environment, its numbers, and the shapes of its state: to lower, nothing has to run."""
    env, params = jaxmas.make(name, num_agents=agents)
    return env, params, jax.eval_shape(env.reset, jax.random.key(0), params)[0]


DISTINCT = {jaxmas.make(entry.name, num_agents=4)[0]: entry.name for entry in SCENARIOS}


@pytest.mark.parametrize("name", list(DISTINCT.values()))
def test_steps_lower_for_every_platform(name: str) -> None:
    """Scenarios that share an environment differ in their numbers alone, and share the program."""
    env, params, state = world(name, 4)
    actions = jnp.zeros(4, jnp.int32)
    lowered, _ = exported(env.step, jax.random.key(1), state, actions, params)
    check(lowered)
    lowered, _ = exported(env.coordinate, jax.random.key(1), state, env.plan_space.empty(), params)
    check(lowered)


@functools.cache
def a_step():
    """Return a lowered step of a whole team, the step itself, and its arguments."""
    env, params, _ = world("workflow-mixed-v0", 4)
    plan = dataclasses.replace(env.plan_space.empty(), active=jnp.ones(4, bool))

    @jax.jit
    def prepare(key):
        state, _ = env.reset(key, params)
        return env.coordinate(key, state, plan, params)

    state, observation = prepare(jax.random.key(0))
    assert observation.acting.all()
    arguments = (jax.random.key(3), state, jnp.array([1, 2, 3, 8], jnp.int32), params)
    return exported(env.step, *arguments)[0], jax.jit(env.step), arguments


def test_a_lowered_step_gives_the_same() -> None:
    lowered, step, arguments = a_step()
    expected = bare(step(*arguments))
    assert unequal(lowered.call(*bare(arguments)), expected) == []
    # It is a function of what it is given, not a recording.
    other = (*arguments[:2], jnp.array([4, 5, 6, 7], jnp.int32), arguments[3])
    assert unequal(lowered.call(*bare(other)), bare(step(*other))) == []
    assert unequal(lowered.call(*bare(other)), expected) != []


def test_a_step_comes_back_from_its_bytes() -> None:
    pytest.importorskip("flatbuffers", reason="jax.export writes bytes with it")
    lowered, step, arguments = a_step()
    again = export.deserialize(lowered.serialize())
    assert tuple(again.platforms) == PLATFORMS
    assert unequal(again.call(*bare(arguments)), bare(step(*arguments))) == []


@functools.cache
def roll_out(name: str, executor_name: str):
    env, params, _ = world(name, 2)
    executor, weights = jaxmas.load_executor(executor_name, env, params)
    meta = TemplatePolicy(env)

    def play(keys, params, weights, row):
        def one(key):
            policies = Policies(meta, row, executor, weights)
            begin_key, play_key = jax.random.split(key)
            return play_query(env, params, policies, begin(env, params, policies, begin_key), play_key)[1]

        return jax.vmap(one)(keys)

    row = jax.tree.map(lambda column: column[1], TEMPLATES[env.family].table())
    return play, (jax.random.split(jax.random.key(0), 3), params, weights, row)


def test_roll_outs_lower_for_every_platform() -> None:
    play, arguments = roll_out("workflow-mixed-v0", "frozen-90")
    check(exported(play, *arguments)[0])


def test_a_lowered_roll_out_gives_the_same() -> None:
    play, arguments = roll_out("probe-delayed-v0", "act")
    lowered, inputs = exported(play, *arguments)
    check(lowered)
    assert unequal(lowered.call(*inputs), bare(jax.jit(play)(*arguments))) == []


def updating(name: str, executor_name: str, **settings: Any):
    """Return one update as a function of arrays, and its arguments."""
    env, params, _ = world(name, 2)
    executor, weights = jaxmas.load_executor(executor_name, env, params)
    config = MetaSkillConfig(updates=4, queries=2, plans=2, width=8, **settings)
    state = jax.eval_shape(lambda key: config.initial_state(env, params, key), jax.random.key(0))

    def update(params, weights, state):
        start = Policies(TemplatePolicy(env), None, executor, weights)
        return run_up_to(config, env, params, start, state, 1, 1)

    return update, (params, weights, state)


VARIANTS = [(learner, space) for learner in ("group", "ppo") for space in ("template", "slots")] + [("group", "script")]
VARIANTS += [
    ("grpo", "cascade"),
    ("distil", "graph"),
    ("evolution", "graph-fixed"),
    ("mcts", "script"),
    ("archive", "slots"),
]


@pytest.mark.parametrize(("learner", "space"), VARIANTS)
def test_updates_lower_for_every_platform(learner: str, space: str) -> None:
    update, arguments = updating("probe-delayed-v0", "act", learner=learner, space=space)
    check(exported(update, *arguments)[0])


def test_an_update_on_workflow_lowers_for_every_platform() -> None:
    update, arguments = updating("workflow-mixed-v0", "frozen-90")
    check(exported(update, *arguments)[0])


@pytest.mark.parametrize(
    ("algorithm", "settings"),
    [
        ("ippo", {"network": "gru", "per_role": True}),
        ("mappo", {}),
        ("metaagent-x", {"mode": "stagewise", "kl": 0.1, "warm_start": 0}),
        ("metaagent-x", {"mode": "coupled", "advantage": "group", "per_role": True, "warm_start": 0}),
    ],
)
def test_training_of_executors_lowers_for_every_platform(algorithm: str, settings: dict[str, Any]) -> None:
    env, params, _ = world("signal-context-v0", 2)
    config: Any = ALGORITHMS[algorithm](updates=4, queries=4, capacity=4, width=8, **settings)
    start = Policies(TemplatePolicy(env, (0,)), None, *jaxmas.load_executor("untrained", env, params))
    state = jax.eval_shape(lambda key: config.initial_state(env, params, key, start), jax.random.key(0))
    check(exported(lambda params, state: run_up_to(config, env, params, start, state, 1, 1), params, state)[0])


def test_a_lowered_update_gives_the_same() -> None:
    update, (params, weights, shapes) = updating("probe-bandit-v0", "act")
    lowered, _ = exported(update, params, weights, shapes)
    env, _, _ = world("probe-bandit-v0", 2)
    state = MetaSkillConfig(updates=4, queries=2, plans=2, width=8).initial_state(env, params, jax.random.key(0))
    after, logs = update(params, weights, state)
    # Two programs, which the quick compiler of the tests need not fuse alike: the same but for the last bits.
    for one, other in zip(lowered.call(*bare((params, weights, state))), bare((after, logs)), strict=True):
        if one.dtype == jnp.float32:
            np.testing.assert_array_max_ulp(np.asarray(one), np.asarray(other), maxulp=8)
        else:
            assert np.array_equal(one, other)
    assert unequal(bare(after.params), bare(state.params)) != []  # it learned something
