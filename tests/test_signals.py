"""Check the signal probes by hand: who can earn what, and who sees what."""

import dataclasses
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmas
from jaxmas.catalog import SCENARIOS, TEMPLATES
from jaxmas.environments.signals import OPTIMAL, UNTRAINED, Signal
from jaxmas.errors import JaxmasError
from jaxmas.executors import UntrainedExecutor, legal
from jaxmas.groups import GroupSizes, play_groups, returns
from jaxmas.plans import Plan
from jaxmas.policies import RandomPolicy
from jaxmas.rollout import Policies
from jaxmas.spaces.language import Language
from jaxmas.spaces.script import ScriptSpace

NAMES = list(OPTIMAL)
CUE, MEMORY, CONTEXT, TEAM = NAMES


@dataclasses.dataclass(frozen=True)
class Telling:
    """A designer that gives everyone the context for its role."""

    env: Any

    def init(self) -> tuple:
        return ()

    def apply(self, params: None, carry: tuple, team: Any, key: Any) -> tuple[Plan, tuple, dict[str, Any]]:
        context = jnp.argmax(team.task_tokens[0]).astype(jnp.int32)
        return TEMPLATES["signal"].build(self.env, context, team), carry, {}


@dataclasses.dataclass(frozen=True)
class Knowing:
    """An executor that knows the table of answers, takes its role for the context, and may remember cues."""

    env: Any
    remembers: bool = True

    def init(self, num_agents: int):
        return jnp.zeros((num_agents, self.env.symbols))

    def apply(self, params: Any, carry: Any, observation: Any, mask: Any, key: Any):
        cue = observation.features[:, : self.env.symbols]
        carry = carry * self.remembers + cue
        role = jnp.argmax(observation.features[:, self.env.symbols :][:, : self.env.roles], axis=1)
        action = params.answer[jnp.minimum(role, self.env.contexts - 1), jnp.argmax(carry, axis=1)]
        return carry, legal(jnp.zeros((self.env.num_agents, self.env.num_actions)), action[:, None] == self.actions)

    @property
    def actions(self):
        return jnp.arange(self.env.num_actions)


def play(env: Any, params: Any, meta: Any, executor: Any, queries: int) -> np.ndarray:
    """Return what the team earns in each query."""
    policies = Policies(meta, None, executor, params if isinstance(executor, Knowing) else None)
    run = jax.jit(lambda one, other: play_groups(env, params, policies, one, other, GroupSizes(queries))[0])
    steps = run(jax.random.key(0), jax.random.key(1))
    earned = np.asarray(returns(steps))
    assert np.allclose(earned, steps.metrics["success"][..., -1])
    assert not steps.metrics["cost"].any()
    return earned.ravel()


@functools.cache
def method(env: Any, name: str):
    return jax.jit(getattr(env, name))


def begin(name: str, seed: int = 0, roles: Any = 0, **sizes: int):
    """Return the environment, its numbers, and the state and observation of a query under a plan of these roles."""
    env, params = jaxmas.make(name, **sizes)
    state, _ = method(env, "reset")(jax.random.key(seed), params)
    state, observation = coordinate(env, params, state, roles)
    return env, params, state, observation


def coordinate(env: Any, params: Any, state: Any, roles: Any):
    plan = dataclasses.replace(env.plan_space.empty(), role=jnp.zeros(env.num_agents, jnp.int32) + jnp.array(roles))
    return method(env, "coordinate")(jax.random.key(0), state, plan, params)


def step(env: Any, params: Any, state: Any, actions: Any):
    return method(env, "step")(jax.random.key(0), state, jnp.array(actions, jnp.int32), params)


# --- what can be earned


def test_every_signal_is_met_here() -> None:
    assert [entry.name for entry in SCENARIOS if entry.family == "signal"] == NAMES
    assert list(UNTRAINED) == NAMES
    assert {SCENARIOS[name].executor for name in NAMES} == {"untrained"}


@pytest.mark.parametrize("name", NAMES)
def test_who_knows_earns_the_optimum(name: str) -> None:
    env, params = jaxmas.make(name)
    assert (play(env, params, Telling(env), Knowing(env), 64) == OPTIMAL[name]).all()


@pytest.mark.parametrize("name", NAMES)
def test_who_knows_nothing_earns_little(name: str) -> None:
    env, params = jaxmas.make(name)
    earned = play(env, params, Telling(env), UntrainedExecutor(), 2048)
    assert abs(earned.mean() - UNTRAINED[name]) < 4 * earned.std() / np.sqrt(len(earned))


def test_at_other_numbers_of_agents_too() -> None:
    for name, agents in ((TEAM, 1), (CONTEXT, 3)):
        env, params = jaxmas.make(name, num_agents=agents)
        assert np.allclose(play(env, params, Telling(env), Knowing(env), 16), OPTIMAL[name])


def test_who_does_not_remember_earns_half() -> None:
    """What is seen at the last step is the same for all cues, and each answer is right for one of two."""
    env, params = jaxmas.make(MEMORY)
    earned = play(env, params, Telling(env), Knowing(env, remembers=False), 2048)
    assert abs(earned.mean() - 0.5) < 4 * earned.std() / np.sqrt(len(earned))


def test_memory_survives_plans() -> None:
    env, params = jaxmas.make(MEMORY, coordination_interval=1)
    assert (play(env, params, Telling(env), Knowing(env), 16) == 1).all()


def test_neither_side_alone_finds_the_code() -> None:
    """Two contexts, one plan or one pair of answers for both: what is right in one of them is wrong in the other."""
    for answers in itertools.product(range(2), repeat=2):
        earned = 0.0
        for context in range(2):
            env, params, state, _ = begin(CONTEXT)
            state = dataclasses.replace(state, context=jnp.int32(context))
            earned += float(step(env, params, state, answers)[1].reward) / 2
        assert earned == 0.5
    env, params = jaxmas.make(CONTEXT)
    earned = play(env, params, RandomPolicy(env), Knowing(env), 2048)
    assert abs(earned.mean() - 0.5) < 4 * earned.std() / np.sqrt(len(earned))


# --- rewards, by hand


def test_cue_pays_each_agent() -> None:
    env, params, state, observation = begin(CUE, roles=[0, 1, 0, 1])
    assert params.answer.tolist() == [[2, 0, 3, 1]]
    state = dataclasses.replace(state, cue=jnp.array([0, 1, 2, 3]))
    after, timestep = step(env, params, state, [2, 0, 3, 0])
    assert timestep.agent_reward.tolist() == [1, 1, 1, 0]
    assert timestep.reward == 0.75 and timestep.metrics["success"] == 0.75
    assert timestep.terminated and not timestep.observation.acting.any()
    assert step(env, params, state, [0, 1, 2, 3])[1].reward == 0  # to repeat the cue is wrong
    again, timestep = step(env, params, after, [2, 0, 3, 1])
    assert timestep.reward == 0 and not timestep.agent_reward.any() and timestep.metrics["success"] == 0.75
    assert all(map(np.array_equal, jax.tree.leaves(again), jax.tree.leaves(after)))
    # Roles change after the end no more, and everyone acts whoever is on the team.
    over, _ = coordinate(env, params, after, 0)
    assert over.role.tolist() == [0, 1, 0, 1]
    assert observation.acting.all()


def test_memory_pays_the_last_answer() -> None:
    env, params, state, observation = begin(MEMORY)
    state = dataclasses.replace(state, cue=jnp.array([0, 1]))
    for _ in range(2):
        assert observation.acting.all()
        state, timestep = step(env, params, state, [1, 0])
        observation = timestep.observation
        assert timestep.reward == 0 and not timestep.agent_reward.any() and not timestep.terminated
        assert timestep.metrics["success"] == 0
    _, timestep = step(env, params, state, [1, 1])
    assert timestep.reward == 0.5 and timestep.agent_reward.tolist() == [1, 0]
    assert timestep.metrics["success"] == 0.5 and timestep.terminated


def test_context_pays_who_answers_with_the_context() -> None:
    for context in range(2):
        env, params, state, _ = begin(CONTEXT, roles=[1, 0])
        state = dataclasses.replace(state, context=jnp.int32(context))
        timestep = step(env, params, state, [1, 0])[1]
        assert timestep.agent_reward.tolist() == [context, 1 - context] and timestep.reward == 0.5


def test_team_pays_all_or_nothing() -> None:
    env, params, state, _ = begin(TEAM)
    state = dataclasses.replace(state, cue=jnp.array([0, 1]))
    for actions in itertools.product(range(2), repeat=2):
        timestep = step(env, params, state, actions)[1]
        assert timestep.reward == (actions == (1, 0)) and not timestep.agent_reward.any()


# --- what is seen


def test_features_are_cue_role_and_time() -> None:
    _, _, state, observation = begin(CUE, roles=[0, 1, 1, 0])
    assert observation.role.tolist() == [0, 1, 1, 0] and observation.tier.tolist() == [0] * 4
    for cue, role, row in zip(state.cue, observation.role, observation.features, strict=True):
        assert row.tolist() == [*np.eye(4)[cue], *np.eye(2)[role], 0]
    assert observation.action_mask.all()


def test_the_cue_is_blank_after_the_first_step() -> None:
    env, params, state, observation = begin(MEMORY, roles=[1, 0], coordination_interval=1)
    assert observation.features[:, :2].tolist() == np.eye(2)[np.asarray(state.cue)].tolist()
    for time in (1, 2):
        state, timestep = step(env, params, state, [0, 0])
        expected = np.array([[0, 0, 0, 1, time / 3], [0, 0, 1, 0, time / 3]])
        assert np.allclose(timestep.observation.features, expected)
    _, observation = coordinate(env, params, state, 1)  # a new plan brings no cue back
    assert np.allclose(observation.features, [[0, 0, 0, 1, 2 / 3]] * 2)


def test_no_agent_sees_the_context() -> None:
    for roles in itertools.product(range(2), repeat=2):
        env, params, state, _ = begin(CONTEXT)
        seen, shown = [], []
        for context in range(2):
            there = dataclasses.replace(state, context=jnp.int32(context))
            shown.append(method(env, "observe_team")(there, params))
            seen.append(coordinate(env, params, there, roles)[1])
        assert all(map(np.array_equal, jax.tree.leaves(seen[0]), jax.tree.leaves(seen[1])))
        assert seen[0].features[:, 1:3].tolist() == np.eye(2)[list(roles)].tolist()
        assert [team.task_tokens.tolist() for team in shown] == [[[1, 0]], [[0, 1]]]
        assert [team.global_features.tolist() for team in shown] == [[1, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("name", NAMES)
def test_reseeding_draws_cues_and_keeps_the_context(name: str) -> None:
    env, params = jaxmas.make(name)
    assert isinstance(env, Signal)

    @jax.jit
    @jax.vmap
    def draw(key):
        reset_key, noise_key = key
        state, _ = env.reset(reset_key, params)
        return state, env.reseed(noise_key, state, params)

    states, again = draw(jax.random.split(jax.random.key(0), (512, 2)))
    assert np.array_equal(again.context, states.context)
    for drawn in (states, again):
        shares = np.bincount(np.asarray(drawn.cue).ravel(), minlength=env.symbols) / drawn.cue.size
        assert np.allclose(shares, 1 / env.symbols, atol=0.1)
    assert np.mean(again.cue == states.cue) == pytest.approx(1 / env.symbols, abs=0.1)
    assert abs(np.mean(states.context) - (env.contexts - 1) / 2) < 0.1


def test_an_interval_that_does_not_fit_is_refused() -> None:
    for name, interval in ((MEMORY, 2), (MEMORY, 0), (CUE, 2)):
        with pytest.raises(JaxmasError, match="has to divide the horizon"):
            jaxmas.make(name, coordination_interval=interval)


# --- templates and scripts


def test_scripts_give_roles() -> None:
    env, params = jaxmas.make(CONTEXT)
    team = method(env, "reset")(jax.random.key(0), params)[1]
    language = Language(env, 6)
    assert language.words == ("block", "add", "double", "stop", "role=0", "role=1", "role-0", "role-1")
    run = jax.jit(language.run)
    for text, active, role in (
        ("add role-1 double", [True, True], [1, 1]),
        ("add role-1 add role-0", [True, True], [1, 0]),
        ("add role-1", [True, False], [1, 0]),
        ("block role=1", [True, True], [1, 1]),
    ):
        plan, valid = run(language.parse(text), team)
        assert valid and plan.active.tolist() == active and plan.role.tolist() == role, text
        assert env.plan_space.project(plan)[1] == 0
        assert plan.tier.tolist() == [0, 0] and plan.task.tolist() == [-1, -1] and plan.reads.tolist() == [[-1], [-1]]
    assert not run(language.parse("add role-1 double stop").at[2].set(language.size), team)[1]


def test_the_program_of_a_row_builds_the_template() -> None:
    env, params = jaxmas.make(CUE)
    team = method(env, "reset")(jax.random.key(0), params)[1]
    language, templates = Language(env, 6), TEMPLATES["signal"]
    plans, valid = jax.jit(jax.vmap(language.run, in_axes=(0, None)))(language.rows, team)
    expected = jax.jit(jax.vmap(lambda row: templates.build(env, row, team)))(templates.table())
    assert valid.all() and all(map(np.array_equal, jax.tree.leaves(plans), jax.tree.leaves(expected)))
    assert plans.role.tolist() == [[0] * 4, [1] * 4] and plans.active.all()
    assert [templates.describe(row) for row in templates.rows] == ["role 0", "role 1"]


def test_programs_that_are_drawn_are_valid() -> None:
    env, params = jaxmas.make(TEAM)
    team = method(env, "reset")(jax.random.key(0), params)[1]
    space = ScriptSpace(env, 8, 6)

    @jax.jit
    def draw(key):
        outputs, _ = space.network.apply(space.network.init(key, team), team)
        tokens = jax.vmap(lambda key: space.sample(outputs, key, team))(jax.random.split(key, 64))
        return jax.vmap(lambda tokens: space.valid(tokens, team))(tokens)

    assert draw(jax.random.key(1)).all()
