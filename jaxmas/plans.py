"""Plans: one coordination decision, and the space of the legal ones.

Everything that plans (strategies, networks, programs, submissions) passes through ``PlanSpace.project``, which turns
any integers into a legal plan and counts the repairs.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from jaxmas.pytrees import pytree

PLAN_FIELDS = ("active", "role", "tier", "task", "reads", "quorum")


@pytree
class Plan:
    """One coordination decision: who is on the team, as what, working on what, reading whom.

    A ``PlanSpace`` says which values are legal; a field that an environment does not use keeps its default.
    """

    active: Bool[Array, "num_agents"]
    """Is this slot on the team? Slots cost only when active."""
    role: Int[Array, "num_agents"]
    """Specialisation, right-of-way class or zone."""
    tier: Int[Array, "num_agents"]
    """Capability tier: a stronger tier errs less and costs more."""
    task: Int[Array, "num_agents"]
    """The task to work on; -1 lets the agent choose."""
    reads: Int[Array, "num_agents inbox"]
    """The agents whose messages it reads; -1 is none."""
    quorum: Int[Array, "tasks"]
    """How many independent answers a task should get before it is left alone."""


@dataclasses.dataclass(frozen=True)
class PlanSpace:
    """The legal plans of an environment; static sizes only."""

    num_agents: int
    num_tasks: int
    num_roles: int
    num_tiers: int
    inbox: int
    max_quorum: int
    fields: tuple[str, ...] = PLAN_FIELDS
    """The plan fields that the environment uses; the others are ignored."""

    def empty(self) -> Plan:
        """Return the plan of a team without members: what holds before the first plan."""
        agents = jnp.zeros(self.num_agents, jnp.int32)
        return Plan(
            active=agents.astype(bool),
            role=agents,
            tier=agents,
            task=agents - 1,
            reads=jnp.full((self.num_agents, self.inbox), -1, jnp.int32),
            quorum=jnp.ones(self.num_tasks, jnp.int32),
        )

    def sample(self, key: PRNGKeyArray) -> Plan:
        """Draw every field uniformly from its range and project: the law that the score calls random."""
        n, keys = self.num_agents, jax.random.split(key, 6)
        plan = Plan(
            active=jax.random.bernoulli(keys[0], shape=(n,)),
            role=jax.random.randint(keys[1], (n,), 0, self.num_roles),
            tier=jax.random.randint(keys[2], (n,), 0, self.num_tiers),
            task=jax.random.randint(keys[3], (n,), -1, self.num_tasks),
            reads=jax.random.randint(keys[4], (n, self.inbox), -1, n),
            quorum=jax.random.randint(keys[5], (self.num_tasks,), 1, self.max_quorum + 1),
        )
        return self.project(plan)[0]

    def project(self, plan: Plan) -> tuple[Plan, Int[Array, ""]]:
        """Turn any integers into a legal plan; also return the number of repairs.

        Out-of-range roles, tiers and tasks become 0, 0 and -1; reads of oneself, of inactive agents, or repeated ones
        become -1; quorums are clipped; an empty team gets slot 0.
        """
        first = jnp.arange(self.num_agents) == 0
        active = plan.active | (first & ~plan.active.any())
        repaired = Plan(
            active=active,
            role=_in_range(plan.role, 0, self.num_roles, 0),
            tier=_in_range(plan.tier, 0, self.num_tiers, 0),
            task=_in_range(plan.task, 0, self.num_tasks, -1),
            reads=_legal_reads(plan.reads, active),
            quorum=jnp.clip(plan.quorum, 1, self.max_quorum).astype(jnp.int32),
        )
        member = dataclasses.replace(plan, reads=jnp.where(active[:, None], plan.reads, -1))
        changed = jax.tree.map(lambda old, new: jnp.sum(old != new), member, repaired)
        return repaired, functools.reduce(jnp.add, jax.tree.leaves(changed))


def _in_range(values: Int[Array, "n"], low: int, high: int, otherwise: int) -> Int[Array, "n"]:
    """Replace values outside [low, high) by ``otherwise``."""
    return jnp.where((values >= low) & (values < high), values, otherwise).astype(jnp.int32)


def _legal_reads(
    reads: Int[Array, "num_agents inbox"], active: Bool[Array, "num_agents"]
) -> Int[Array, "num_agents inbox"]:
    """Drop reads of nobody, of oneself, of inactive agents and of an agent already in the inbox."""
    n, inbox = reads.shape
    earlier = jnp.tril(jnp.ones((inbox, inbox), bool), -1)
    repeated = jnp.any((reads[:, :, None] == reads[:, None, :]) & earlier, axis=-1)
    known = (reads >= 0) & (reads < n)
    legal = known & ~repeated & (reads != jnp.arange(n)[:, None]) & active[jnp.clip(reads, 0, n - 1)]
    legal &= active[:, None]
    return jnp.where(legal, reads, -1).astype(jnp.int32)
