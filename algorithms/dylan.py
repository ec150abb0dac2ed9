"""DyLAN-style (simulated): a roster's members rate each other over trial queries, and the most important make the team.

| | DyLAN (arXiv 2310.02170) | here |
|---|---|---|
| trial runs | the whole team answers training queries | the same, under a plan in which members read each other |
| rating | a reader scores every message that it got | the share of a member's votes that the plurality shares |
| importance | the last layer's, passed backwards to the messages that it used | the reporter's, over ``hops`` readers |
| team | the top k, chosen once per task | the same; they read each other, most important first |
| ranker in mid-episode | a language model keeps two messages | ``dylan-ranker``: the half that agrees least leaves |
| early stop | when two thirds of a layer agree | then one vote on the last subtask is enough to it |

No reward is used: importance is what the members think of each other. Both need plans of their own: the choice needs a
roster whose members are the same in all queries, the ranker a ``--coordination-interval`` below the horizon.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxmas.errors import check_numbers, refuse
from jaxmas.groups import GroupSizes, play_groups, returns
from jaxmas.logs import log_plays
from jaxmas.plans import Plan
from jaxmas.policies import TemplatePolicy
from jaxmas.pytrees import pytree
from jaxmas.registry import ALGORITHMS, STRATEGIES, TEMPLATES
from jaxmas.rollout import MetaStep, Policies
from jaxmas.spaces.base import Decision
from jaxmas.spaces.graph import team_row
from jaxmas.types import Environment, MetaPolicy, TeamObservation


@dataclasses.dataclass(frozen=True)
class DylanConfig:
    """Settings of DyLAN's choice of a team."""

    updates: int = 20
    queries: int = 96
    """Trial queries per update."""
    keep: int = 6
    """Members that are kept (k)."""
    members: int = 0
    """Members of the trial team; 0 takes everyone."""
    team: str = ""
    """The strategy whose plan the trials follow; by default the environment's usual team."""
    hops: int = 3
    """Readers over which importance is passed on."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot be."""
        check_numbers("dylan", self, ("updates", "queries", "keep", "hops"), 1)
        check_numbers("dylan", self, ("members",), 0)

    @property
    def sizes(self) -> GroupSizes:
        """Return what is played in an update."""
        return GroupSizes(self.queries)

    def row(self, env: Environment) -> tuple[int, ...]:
        """Return the row of the grammar that is the team of the trials."""
        return team_row(self.team, self.members or env.num_agents, env)

    def initial_state(
        self, env: Environment, params: Any, key: PRNGKeyArray, start: Policies | None = None
    ) -> "DylanState":
        """Return the state before the first trial."""
        names = getattr(env, "agent_token_names", ())
        refuse(
            not {"attempts", "agreement"} <= set(names),
            f"dylan: members of {env.family} do not show attempts and agreement; take a workflow scenario",
        )
        refuse(self.keep > env.num_agents, f"dylan: keep is {self.keep}; there are {env.num_agents} members")
        return DylanState(jnp.zeros(env.num_agents), key, jnp.int32(0))

    def update(
        self, env: Environment, params: Any, start: Policies, state: "DylanState"
    ) -> tuple["DylanState", dict[str, Array]]:
        """Play trial queries with the whole team, and add up what members think of each other."""
        key, query_key, play_key = jax.random.split(state.key, 3)
        policies = dataclasses.replace(start, meta=TemplatePolicy(env, self.row(env)), meta_params=None)
        steps, _ = play_groups(env, params, policies, query_key, play_key, self.sizes)
        rate = functools.partial(importance, env, self.hops)
        last = jax.tree.map(lambda leaf: leaf[:, 0, 0, -1], steps)
        seen = jnp.mean(jax.vmap(rate)(last), axis=0)
        count = state.update.astype(jnp.float32)
        mean = (state.params * count + seen) / (count + 1)
        logs = log_plays(steps, returns(steps)) | {"least_important": jnp.min(mean), "most_important": jnp.max(mean)}
        return DylanState(mean, key, state.update + 1), logs

    def designer(self, env: Environment, state: "DylanState", greedy: bool = False) -> tuple[MetaPolicy, Any]:
        """Return the team of the most important members."""
        return Roster(env, self.row(env), self.keep), state.params

    def executor(self, env: Environment, state: "DylanState") -> None:
        """Return nothing: executors are frozen."""


@pytree
class DylanState:
    """The members' mean importance so far."""

    params: Float[Array, "num_agents"]
    key: PRNGKeyArray
    update: Int[Array, ""]


def importance(env: Any, hops: int, step: MetaStep) -> Float[Array, "num_agents"]:
    """Return how much of the report rests on each member: I_i = Σ_j I_j · r_i / Σ_{k read by j} r_k, from the reporter.

    A member's rating r is the share of its votes that the crowd shares (DyLAN, section 3.3, where peers score it).
    """
    column = {name: step.next_team.agent_tokens[:, index] for index, name in enumerate(env.agent_token_names)}
    rating = jnp.where(column["attempts"] > 0, column["agreement"], 0.0)
    reads, n = step.plan.reads, len(rating)
    heard = jnp.where(reads >= 0, rating[jnp.maximum(reads, 0)], 0.0)
    share = heard / jnp.maximum(jnp.sum(heard, axis=1, keepdims=True), 1e-6)

    def back(passed: Array, _: None) -> tuple[Array, Array]:
        given = passed[:, None] * share
        passed = jnp.zeros(n).at[jnp.where(reads >= 0, reads, n)].add(given, mode="drop")
        return passed, passed

    reporter = jax.nn.one_hot(jnp.argmax(step.plan.active), n)
    return jnp.sum(jax.lax.scan(back, reporter, None, hops)[1], axis=0)


@dataclasses.dataclass(frozen=True)
class Roster:
    """The most important members, who read each other; its parameters are the importances."""

    env: Environment
    row: tuple[int, ...]
    """The row of the grammar that gives roles, tiers, tasks and quorums."""
    keep: int

    def init(self) -> tuple:
        """Return the empty carry."""
        return ()

    def apply(
        self, params: Float[Array, "num_agents"], carry: tuple, team: TeamObservation, key: PRNGKeyArray
    ) -> tuple[Plan, tuple, dict[str, Any]]:
        """Return the plan of the team."""
        templates = TEMPLATES[self.env.family]
        base = templates.build(self.env, templates.row(self.row), team)
        return self.env.plan_space.project(among(base, self.kept(params), params))[0], carry, {}

    def kept(self, scores: Float[Array, "num_agents"]) -> Array:
        """Return who is on the team; of equals the lowest slots."""
        place = jnp.argsort(jnp.argsort(-scores, stable=True))
        return place < self.keep

    def explain(self, params: Any, team: TeamObservation, key: PRNGKeyArray) -> list[Decision]:
        """Return every member's importance, as a share of all."""
        kept, total = self.kept(params), jnp.maximum(jnp.sum(params), 1e-6)
        order = [int(slot) for slot in jnp.argsort(-params)]
        return [Decision(f"slot {s}", "kept" if kept[s] else "left out", float(params[s] / total)) for s in order]


def among(plan: Plan, members: Array, scores: Float[Array, "num_agents"]) -> Plan:
    """Return the plan with these members, each of whom reads the best of the others."""
    n, inbox = plan.reads.shape
    best = jnp.argsort(jnp.where(members, -scores, jnp.inf), stable=True)[: inbox + 1]
    best = jnp.where(members[best], best, -1)
    others = jnp.where(best[None, :] == jnp.arange(n)[:, None], -1, best[None, :])
    first = jnp.argsort(others < 0, axis=1, stable=True)[:, :inbox]
    reads = jnp.take_along_axis(others, first, axis=1)
    reads = jnp.pad(reads, ((0, 0), (0, inbox - reads.shape[1])), constant_values=-1)
    return dataclasses.replace(plan, active=members, reads=jnp.where(members[:, None], reads, -1))


@dataclasses.dataclass(frozen=True)
class Ranker:
    """Begins with a mesh; at every later plan the half that agrees least leaves, and agreement ends the query."""

    env: Environment
    row: tuple[int, ...]
    enough: float = 2 / 3
    """Mean agreement at which the last subtask needs one vote only."""

    def init(self) -> tuple:
        """Return the empty carry."""
        return ()

    def apply(
        self, params: Any, carry: tuple, team: TeamObservation, key: PRNGKeyArray
    ) -> tuple[Plan, tuple, dict[str, Any]]:
        """Return the whole team at first, then those who agree most."""
        templates, names = TEMPLATES[self.env.family], self.env.agent_token_names  # type: ignore[attr-defined]
        base = templates.build(self.env, templates.row(self.row), team)
        column = {name: team.agent_tokens[:, index] for index, name in enumerate(names)}
        active, spoke = column["active"] > 0, column["attempts"] > 0
        agreement = jnp.where(active & spoke, column["agreement"], -1.0)
        half = (jnp.sum(active) + 1) // 2
        place = jnp.argsort(jnp.argsort(-agreement, stable=True))
        left = among(base, active & (place < half), agreement)
        mean = jnp.sum(jnp.where(active & spoke, agreement, 0)) / jnp.maximum(jnp.sum(active & spoke), 1)
        sink = jnp.arange(len(base.quorum)) == 0
        quorum = jnp.where(sink & (mean >= self.enough), 1, base.quorum)
        ranked = dataclasses.replace(left, quorum=quorum)
        begun = jnp.any(spoke)
        plan = jax.tree.map(lambda first, later: jnp.where(begun, later, first), base, ranked)
        return self.env.plan_space.project(plan)[0], carry, {}


def _ranker(env: Environment, params: Any = None) -> MetaPolicy:
    return Ranker(env, team_row("mesh", 8, env))


ALGORITHMS.add(
    "dylan", DylanConfig, "a roster rates itself over trials, the most important make the team (DyLAN-style)"
)
STRATEGIES.add(
    "dylan-ranker", _ranker, "a mesh whose half that agrees least leaves at every new plan (DyLAN-style)", "workflow"
)
