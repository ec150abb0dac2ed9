"""Meta-policies that design: a space with a network, one choice for all queries, and a teacher that tries things."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from jaxmas.plans import Plan
from jaxmas.spaces.base import Decision
from jaxmas.types import TeamObservation


@dataclasses.dataclass(frozen=True)
class LearnedPolicy:
    """A design space with a network, as a meta-policy; greedy or sampling.

    ``sees`` says what its network is shown of a query: all of it, or, as a reference for what looking is worth, the
    global features only, or nothing. Plans are built for the query as it is.
    """

    space: Any
    greedy: bool = False
    sees: Literal["all", "global", "nothing"] = "all"

    def init(self) -> Any:
        """Return the empty carry."""
        return ()

    def outputs(self, params: Any, team: TeamObservation) -> tuple[Any, Float[Array, ""]]:
        """Return what the space samples from and the value of the query."""
        return self.space.network.apply(params, self._shown(team))

    def apply(
        self, params: Any, carry: Any, team: TeamObservation, key: PRNGKeyArray
    ) -> tuple[Plan, Any, dict[str, Any]]:
        """Return a plan; the info holds the choice, whether it is valid, its log-probability and the value."""
        space = self.space
        outputs, value = self.outputs(params, team)
        choice = space.mode(outputs, team) if self.greedy else space.sample(outputs, key, team)
        log_prob, _ = space.score(outputs, choice, team)
        return space.to_plan(choice, team), carry, _said(space, choice, team, log_prob, value)

    def score(
        self, params: Any, team: TeamObservation, choice: Any
    ) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
        """Return the log-probability of a choice, the entropy and the value of the query."""
        outputs, value = self.outputs(params, team)
        return *self.space.score(outputs, choice, team), value

    def explain(self, params: Any, team: TeamObservation, key: PRNGKeyArray) -> list[Decision]:
        """Return the decisions of a plan with their probabilities, for people to read."""
        outputs, _ = self.outputs(params, team)
        choice = self.space.mode(outputs, team) if self.greedy else self.space.sample(outputs, key, team)
        return self.space.explain(outputs, choice, team)

    def initial_params(self, key: PRNGKeyArray, team: TeamObservation) -> Any:
        """Return fresh parameters."""
        return self.space.network.init(key, team)

    def _shown(self, team: TeamObservation) -> TeamObservation:
        if self.sees == "all":
            return team
        shown = dataclasses.replace(
            team,
            task_tokens=jnp.zeros_like(team.task_tokens),
            task_parents=team.task_parents * 0 - 1,
            task_mask=jnp.ones_like(team.task_mask),
        )
        if self.sees == "global":
            return shown
        return dataclasses.replace(shown, global_features=jnp.zeros_like(team.global_features))


@dataclasses.dataclass(frozen=True)
class FixedDesign:
    """One choice for all queries, its parameters: what search finds."""

    space: Any

    def init(self) -> tuple:
        """Return the empty carry."""
        return ()

    def apply(
        self, params: Any, carry: tuple, team: TeamObservation, key: PRNGKeyArray
    ) -> tuple[Plan, tuple, dict[str, Any]]:
        """Return the plan that the choice is for this query."""
        nothing = jnp.float32(0)
        return self.space.to_plan(params, team), carry, _said(self.space, params, team, nothing, nothing)

    def explain(self, params: Any, team: TeamObservation, key: PRNGKeyArray) -> list[Decision]:
        """Return the decisions of the design, for people to read; they are certain."""
        shapes = jax.eval_shape(self.space.network.init_with_output, key, team)[0][0]
        outputs = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        decisions = self.space.explain(outputs, params, team)
        return [decision._replace(probability=1.0) for decision in decisions if decision.what != "or"]


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A policy's own designs and random ones: what a teacher tries.

    Parameters are the policy's and the share of random designs.
    """

    policy: LearnedPolicy

    def init(self) -> tuple:
        """Return the empty carry."""
        return ()

    def apply(
        self, params: tuple[Any, Any], carry: tuple, team: TeamObservation, key: PRNGKeyArray
    ) -> tuple[Plan, tuple, dict[str, Any]]:
        """Return a plan, and of its choice what the policy says of its own."""
        (weights, share), space = params, self.policy.space
        own_key, random_key, which_key = jax.random.split(key, 3)
        outputs, value = self.policy.outputs(weights, team)
        random, own = space.propose(random_key, team), space.sample(outputs, own_key, team)
        tries = jax.random.bernoulli(which_key, share)
        choice = jax.tree.map(lambda random, own: jnp.where(tries, random, own), random, own)
        log_prob, _ = space.score(outputs, choice, team)
        return space.to_plan(choice, team), carry, _said(space, choice, team, log_prob, value)


def _said(space: Any, choice: Any, team: TeamObservation, log_prob: Any, value: Any) -> dict[str, Any]:
    """Return what learners want to know of a choice."""
    return {"choice": choice, "valid": space.valid(choice, team), "log_prob": log_prob, "value": value}
