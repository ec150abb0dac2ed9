"""The numbers of a workflow scenario, and the names of its roles."""

from jaxtyping import Array, Float, Int

from jaxmas.environments.workflow.query import QueryMix
from jaxmas.pytrees import pytree


@pytree
class Reward:
    """Weights of the reward, paid once, at the report."""

    success: Float[Array, ""]
    cost: Float[Array, ""]
    complexity: Float[Array, ""]
    latency: Float[Array, ""]
    partial: Float[Array, ""]
    """Shaping for training only: 0 in every ranked result."""
    cost_reference: Float[Array, ""]
    """The cost that counts as 1."""
    complexity_reference: Float[Array, ""]
    """The number of members and edges that counts as 1."""


@pytree
class WorkflowParams:
    """Everything about a workflow world that is a number: swept, shifted and mapped over without recompiling."""

    mix: QueryMix
    reward: Reward
    tables: Int[Array, "skills 8"]
    """One permutation of the tokens per skill: the work that executors learn."""
    tier_noise: Float[Array, "tiers skills"]
    tier_cost: Float[Array, "tiers"]
    """Cost of one attempt."""
    mismatch: Float[Array, "roles skills"]
    """Factor on the noise for each role and skill: 1 is a matched specialist."""
    ability: Float[Array, "num_agents skills"]
    """Factor on the noise for each slot: 1 unless a roster has unequal members."""
    faulty: Float[Array, "num_agents"]
    """Chance that a slot answers at random throughout a query."""
    adversarial: Float[Array, "num_agents"]
    """Chance that a slot gives the agreed wrong answer throughout a query."""
    context_load: Float[Array, ""]
    """Growth of the noise per subtask read about and per subtask already done."""
    max_noise: Float[Array, ""]
    read_cost: Float[Array, ""]
    """Cost of a message, as a share of the attempt's."""
    message_loss: Float[Array, ""]
    plan_cost: Float[Array, ""]
    change_cost: Float[Array, ""]
    """Cost per agent and field that a plan changes."""
    plan_loss: Float[Array, ""]
    """Chance that an agent misses a new plan and keeps its old one."""
    designer_noise: Float[Array, ""]
    """How much of the query the designer misperceives; 0 is nothing."""
    designer_delay: Int[Array, ""]
    """How many plan boundaries old the progress is that the designer sees."""


def role_names(num_skills: int) -> tuple[str, ...]:
    """Return the roles in the order of their numbers: one specialist per skill, then the three without a skill."""
    return (*(f"specialist-{skill}" for skill in range(num_skills)), "generalist", "critic", "aggregator")
