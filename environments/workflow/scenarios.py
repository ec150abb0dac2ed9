"""The workflow scenarios. Numbers here are frozen with the scenario's version."""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np

from jaxmas.environments.workflow.params import Reward, WorkflowParams
from jaxmas.environments.workflow.query import SHAPES, QueryMix
from jaxmas.environments.workflow.votes import VOCABULARY
from jaxmas.environments.workflow.workflow import Workflow
from jaxmas.registry import SCENARIOS, Scenario

NUM_SKILLS = 4
WORLD_SEED = 2026


def skill_tables(num_skills: int = NUM_SKILLS, seed: int = WORLD_SEED) -> jnp.ndarray:
    """Return one fixed random permutation of the tokens per skill; every scenario and executor shares them."""
    generator = np.random.default_rng(seed)
    return jnp.array(np.stack([generator.permutation(VOCABULARY) for _ in range(num_skills)]), jnp.int32)


def mismatch_table(matched: float, other: float, generalist: float, critic: float) -> jnp.ndarray:
    """Return the noise factor of every role on every skill."""
    table = np.full((NUM_SKILLS + 3, NUM_SKILLS), other, np.float32)
    table[np.arange(NUM_SKILLS), np.arange(NUM_SKILLS)] = matched
    table[NUM_SKILLS] = generalist
    table[NUM_SKILLS + 1 :] = critic
    return jnp.array(table)


def mixed_params(num_agents: int) -> WorkflowParams:
    """Return the parameters of ``workflow-mixed-v0``."""
    f = jnp.float32
    return WorkflowParams(
        mix=QueryMix(
            shape_weights=f([1.5, 1.0, 2.5, 2.5, 1.0]),
            size=f([0.25, 0.75]),
            width=f(0.0),
            difficulty=f([0.04, 0.42]),
            difficulty_spread=f(0.5),
            skill_focus=f([0.0, 0.55]),
            rho=f([0.0, 0.3]),
            distractor=f([0.0, 0.3]),
            handoff_noise=f([0.0, 0.3]),
            slack=f([0.0, 4.0]),
        ),
        reward=Reward(
            success=f(1.0),
            cost=f(0.12),
            complexity=f(0.02),
            latency=f(0.03),
            partial=f(0.0),
            cost_reference=f(20.0),
            complexity_reference=f(16.0),
        ),
        tables=skill_tables(),
        tier_noise=f([[1.2] * NUM_SKILLS, [0.8] * NUM_SKILLS, [0.35] * NUM_SKILLS]),
        tier_cost=f([0.4, 2.0, 6.5]),
        mismatch=mismatch_table(matched=1.0, other=4.0, generalist=2.7, critic=1.3),
        ability=jnp.ones((num_agents, NUM_SKILLS), jnp.float32),
        faulty=jnp.zeros(num_agents, jnp.float32),
        adversarial=jnp.zeros(num_agents, jnp.float32),
        context_load=f(0.3),
        max_noise=f(0.9),
        read_cost=f(0.3),
        message_loss=f(0.02),
        plan_cost=f(0.2),
        change_cost=f(0.01),
        plan_loss=f(0.0),
        designer_noise=f(0.03),
        designer_delay=jnp.int32(0),
    )


def make_mixed(num_agents: int = 16, *, coordination_interval: int = 12) -> tuple[Workflow, WorkflowParams]:
    """Return ``workflow-mixed-v0``: sixteen slots, every kind of query."""
    env = Workflow(num_agents=num_agents, coordination_interval=coordination_interval)
    return env, mixed_params(num_agents)


def make_crowd(num_agents: int = 256, *, coordination_interval: int = 24) -> tuple[Workflow, WorkflowParams]:
    """Return ``workflow-crowd-v0``: one subtask for every two slots, so that the work grows with the team.

    The sink rests on every subtask, so that a share of mistakes that is small per subtask is large per query: votes
    and redundant messages have to carry it.
    """
    subtasks = num_agents // 2 if num_agents <= 64 else 32 * (num_agents // 64)
    env = Workflow(
        num_agents=num_agents,
        max_subtasks=max(subtasks, 4),
        horizon=24,
        coordination_interval=coordination_interval,
    )
    params, f = mixed_params(num_agents), jnp.float32
    mix = dataclasses.replace(
        params.mix,
        shape_weights=f([0.0, 0.0, 2.0, 2.0, 1.0]),
        size=f([0.75, 1.0]),
        width=f(0.5),
        difficulty=f([0.002, 0.04]),
        rho=f([0.0, 0.3]),
        handoff_noise=f([0.0, 0.02]),
        slack=f([2.0, 8.0]),
    )
    reward = dataclasses.replace(
        params.reward, cost_reference=f(5.0 * env.max_subtasks), complexity_reference=f(8.0 * num_agents)
    )
    return env, dataclasses.replace(params, mix=mix, reward=reward, context_load=f(0.05), message_loss=f(0.005))


def make_roster(num_agents: int = 16, *, coordination_interval: int = 12) -> tuple[Workflow, WorkflowParams]:
    """Return ``workflow-roster-v0``: unequal members, three in sixteen faulty and two adversarial, always the same."""
    env, params = make_mixed(num_agents, coordination_interval=coordination_interval)
    generator = np.random.default_rng(WORLD_SEED)
    ability = np.exp(generator.normal(0.0, 0.5, (num_agents, NUM_SKILLS)))
    order = generator.permutation(num_agents)
    faulty, adversarial = np.zeros(num_agents), np.zeros(num_agents)
    faulty[order[: num_agents * 3 // 16]] = 1
    adversarial[order[num_agents * 3 // 16 : num_agents * 5 // 16]] = 1
    f = functools.partial(jnp.array, dtype=jnp.float32)
    return env, dataclasses.replace(params, ability=f(ability), faulty=f(faulty), adversarial=f(adversarial))


def make_specialist(num_agents: int = 16, *, coordination_interval: int = 12) -> tuple[Workflow, WorkflowParams]:
    """Return ``workflow-specialist-v0``: no role sees better than another; what agents know has to come apart."""
    env, params = make_mixed(num_agents, coordination_interval=coordination_interval)
    return env, dataclasses.replace(params, mismatch=jnp.ones_like(params.mismatch))


def make_narrow(num_agents: int = 16, *, coordination_interval: int = 12) -> tuple[Workflow, WorkflowParams]:
    """Return ``workflow-narrow-v0``: the smaller half of three of the mixed scenario's five shapes of queries."""
    env, params = make_mixed(num_agents, coordination_interval=coordination_interval)
    return env, dataclasses.replace(params, mix=only_shapes(params.mix, SEEN, size=(0.25, 0.5)))


SEEN = ("single", "chain", "wide")
"""Shapes of ``workflow-narrow-v0``; those that are held out are the others."""


def only_shapes(mix: QueryMix, shapes: tuple[str, ...], size: tuple[float, float] | None = None) -> QueryMix:
    """Return a mix of some shapes only, and of these sizes."""
    kept = jnp.array([name in shapes for name in SHAPES])
    sizes = mix.size if size is None else jnp.float32(size)
    return dataclasses.replace(mix, shape_weights=mix.shape_weights * kept, size=sizes)


SCENARIOS.add(
    "workflow-mixed-v0",
    Scenario("workflow-mixed-v0", make_mixed, 16, "frozen-90"),
    "16 slots; single, chain, wide, tree and random queries of every difficulty",
    "workflow",
)
SCENARIOS.add(
    "workflow-crowd-v0",
    Scenario("workflow-crowd-v0", make_crowd, 256, "scripted"),
    "256 slots; graphs that grow with the team, every subtask of which counts",
    "workflow",
)
SCENARIOS.add(
    "workflow-roster-v0",
    Scenario("workflow-roster-v0", make_roster, 16, "frozen-90"),
    "16 fixed, unequal members; some are faulty, some adversarial",
    "workflow",
)
SCENARIOS.add(
    "workflow-specialist-v0",
    Scenario("workflow-specialist-v0", make_specialist, 16, "frozen-60"),
    "roles make no difference: specialisation has to emerge in the executors",
    "workflow",
)
SCENARIOS.add(
    "workflow-narrow-v0",
    Scenario("workflow-narrow-v0", make_narrow, 16, "frozen-90"),
    "small single, chain and wide queries only: to train on where the test is elsewhere",
    "workflow",
)
