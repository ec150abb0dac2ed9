"""The workflow scenarios. Numbers here are frozen with the scenario's version."""

import jax.numpy as jnp
import numpy as np

from jaxmas.environments.workflow.params import Reward, WorkflowParams
from jaxmas.environments.workflow.query import QueryMix
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
            shape_weights=f([1.0, 1.0, 2.0, 2.0, 1.0]),
            size=f([0.25, 0.5]),
            width=f(0.0),
            difficulty=f([0.02, 0.4]),
            difficulty_spread=f(0.8),
            skill_focus=f([0.0, 1.0]),
            rho=f([0.0, 0.85]),
            distractor=f([0.0, 0.8]),
            handoff_noise=f([0.0, 0.22]),
            slack=f([0.0, 2.0]),
        ),
        reward=Reward(
            success=f(1.0),
            cost=f(0.13),
            complexity=f(0.015),
            latency=f(0.05),
            partial=f(0.0),
            cost_reference=f(20.0),
            complexity_reference=f(16.0),
        ),
        tables=skill_tables(),
        tier_noise=f([[1.55] * NUM_SKILLS, [0.85] * NUM_SKILLS, [0.5] * NUM_SKILLS]),
        tier_cost=f([1.0, 2.35, 4.8]),
        mismatch=mismatch_table(matched=1.0, other=4.0, generalist=1.55, critic=1.3),
        ability=jnp.ones((num_agents, NUM_SKILLS), jnp.float32),
        faulty=jnp.zeros(num_agents, jnp.float32),
        adversarial=jnp.zeros(num_agents, jnp.float32),
        context_load=f(0.16),
        max_noise=f(0.9),
        read_cost=f(0.04),
        message_loss=f(0.02),
        plan_cost=f(0.2),
        change_cost=f(0.01),
        plan_loss=f(0.0),
        designer_noise=f(0.1),
        designer_delay=jnp.int32(0),
    )


def make_mixed(num_agents: int = 16, *, coordination_interval: int | None = None) -> tuple[Workflow, WorkflowParams]:
    """Return ``workflow-mixed-v0``: sixteen slots, every kind of query."""
    env = Workflow(num_agents=num_agents, coordination_interval=coordination_interval or 12)
    return env, mixed_params(num_agents)


SCENARIOS.add(
    "workflow-mixed-v0",
    Scenario("workflow-mixed-v0", make_mixed, 16, "frozen-90"),
    "16 slots; single, chain, wide, tree and random queries of every difficulty",
    "workflow",
)
