"""A bandit over the plan grid, with the few visible numbers of a query as its context or without: a reference.

| | LinUCB, disjoint (Li et al., arXiv 1003.0146) | here |
|---|---|---|
| arms | articles | rows of the environment's plan grammar |
| context | features of the user | the global features of the query and a constant; ``sees nothing``: the constant |
| estimate | ridge regression per arm | the same |
| choice | highest estimate plus bonus, one query at a time | highest draw from the estimate's posterior |

The last is Thompson sampling (Agrawal and Goyal, arXiv 1209.3352): all queries of an update are met with one estimate,
and by the highest bonus they would all get the same arm.
"""

import dataclasses
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxmas.errors import check_numbers, refuse
from jaxmas.groups import GroupSizes, play_groups, returns
from jaxmas.logs import log_plays
from jaxmas.plans import Plan
from jaxmas.pytrees import pytree
from jaxmas.registry import ALGORITHMS, TEMPLATES
from jaxmas.rollout import Policies
from jaxmas.spaces.base import Decision
from jaxmas.types import Environment, MetaPolicy, TeamObservation


@dataclasses.dataclass(frozen=True)
class BanditConfig:
    """Settings of a bandit over the rows of the plan grammar."""

    called: ClassVar[str] = "bandit"
    updates: int = 400
    queries: int = 384
    """Queries per update, each played once."""
    sees: Literal["global", "nothing"] = "global"
    """The context: the global features of a query, or none."""
    ridge: float = 1.0
    """Weight of the prior that rewards are zero, in plays per arm."""
    deviation: float = 0.5
    """Standard deviation of a reward, which says how widely choices are drawn."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot be."""
        check_numbers(self.called, self, ("updates", "queries"), 1)
        check_numbers(self.called, self, ("deviation",), 0)
        refuse(not self.ridge > 0, f"{self.called}: ridge is {self.ridge}; it has to be above 0")

    @property
    def sizes(self) -> GroupSizes:
        """Return what is played in an update."""
        return GroupSizes(self.queries)

    def initial_state(
        self, env: Environment, params: Any, key: PRNGKeyArray, start: Policies | None = None
    ) -> "BanditState":
        """Return the state before the first query: all arms alike."""
        team = jax.eval_shape(lambda key: env.reset(key, params)[1], key)
        size, arms = jax.eval_shape(lambda team: context(team, self.sees), team).shape[0], len(rows_of(env))
        precision = jnp.broadcast_to(self.ridge * jnp.eye(size), (arms, size, size))
        return BanditState({"precision": precision, "moment": jnp.zeros((arms, size))}, key, jnp.int32(0))

    def update(
        self, env: Environment, params: Any, start: Policies, state: "BanditState"
    ) -> tuple["BanditState", dict[str, Array]]:
        """Meet queries with arms drawn from the posterior, and add what they earned to the arms' estimates."""
        key, query_key, play_key = jax.random.split(state.key, 3)
        policies = dataclasses.replace(start, meta=self.router(env, greedy=False), meta_params=fitted(state.params))
        steps, _ = play_groups(env, params, policies, query_key, play_key, self.sizes)
        earned = returns(steps)
        first = jax.tree.map(lambda leaf: leaf[:, 0, 0, 0], (steps.team, steps.info["arm"]))
        seen = jax.vmap(lambda team: context(team, self.sees))(first[0])
        params_now = {
            "precision": state.params["precision"].at[first[1]].add(seen[:, :, None] * seen[:, None, :]),
            "moment": state.params["moment"].at[first[1]].add(earned[:, 0, 0, None] * seen),
        }
        return BanditState(params_now, key, state.update + 1), log_plays(steps, earned)

    def router(self, env: Environment, greedy: bool) -> "Router":
        """Return the policy that draws from the estimate, or takes its best."""
        return Router(env, self.sees, self.deviation, greedy)

    def designer(self, env: Environment, state: "BanditState", greedy: bool = False) -> tuple[MetaPolicy, Any]:
        """Return the policy, and the arms' estimates."""
        return self.router(env, greedy), fitted(state.params)

    def executor(self, env: Environment, state: "BanditState") -> None:
        """Return nothing: executors are frozen."""


@pytree
class BanditState:
    """What is known of the arms: Σ x xᵀ + ridge and Σ reward · x."""

    params: dict[str, Array]
    key: PRNGKeyArray
    update: Int[Array, ""]


def fitted(params: dict[str, Array]) -> dict[str, Array]:
    """Return the arms' weights θ = A⁻¹ b and A⁻¹, once for all queries."""
    inverse = jnp.linalg.inv(params["precision"])
    return {"weights": jnp.einsum("aij,aj->ai", inverse, params["moment"]), "inverse": inverse}


def rows_of(env: Environment) -> tuple[tuple[int, ...], ...]:
    """Return the arms."""
    return TEMPLATES[env.family].rows


def context(team: TeamObservation, sees: str) -> Float[Array, "features"]:
    """Return a constant, and the global features where they are seen."""
    return jnp.append(team.global_features if sees == "global" else jnp.zeros(0), 1.0)


@dataclasses.dataclass(frozen=True)
class Router:
    """Builds the row whose estimate, or draw from its posterior, is highest for a query."""

    env: Environment
    sees: str
    deviation: float
    greedy: bool

    def init(self) -> tuple:
        """Return the empty carry."""
        return ()

    def apply(
        self, params: dict[str, Array], carry: tuple, team: TeamObservation, key: PRNGKeyArray
    ) -> tuple[Plan, tuple, dict[str, Any]]:
        """Return the arm's plan."""
        mean, spread = self.estimate(params, team)
        arm = jnp.argmax(mean + (0 if self.greedy else spread * jax.random.normal(key, mean.shape)))
        templates = TEMPLATES[self.env.family]
        row = jax.tree.map(lambda column: column[arm], templates.table())
        return templates.build(self.env, row, team), carry, {"arm": arm}

    def estimate(self, params: dict[str, Array], team: TeamObservation) -> tuple[Array, Array]:
        """Return mean and standard deviation of every arm's reward: σ² xᵀ A⁻¹ x is the variance of θᵀ x."""
        seen = context(team, self.sees)
        variance = jnp.einsum("i,aij,j->a", seen, params["inverse"], seen)
        return params["weights"] @ seen, self.deviation * jnp.sqrt(jnp.maximum(variance, 0))

    def explain(self, params: dict[str, Array], team: TeamObservation, key: PRNGKeyArray) -> list[Decision]:
        """Return the best arm, and how likely the posterior holds it to be that."""
        mean, spread = self.estimate(params, team)
        best, templates = int(jnp.argmax(mean)), TEMPLATES[self.env.family]
        drawn = mean + spread * jax.random.normal(key, (1024, len(mean)))
        return [Decision("plan", templates.describe(rows_of(self.env)[best]), float(jnp.mean(drawn.argmax(1) == best)))]


ALGORITHMS.add("bandit", BanditConfig, "a linear bandit over the rows of the plan grammar, with or without context")
