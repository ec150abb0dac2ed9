"""Design spaces: how a learned meta-policy expresses a plan.

Every space samples a choice from network outputs, scores it (log-probability and the entropy of the law that it was
drawn from), and turns it into a plan; gradient learners need nothing else. Search needs ``propose``, a random choice,
and ``vary``, one that is a little different. ``from_template`` gives supervised starts a choice that builds a template.
"""

import dataclasses
from typing import Any, ClassVar, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jaxmas.networks import MLP, TeamEncoder
from jaxmas.plans import Plan
from jaxmas.registry import DESIGN_SPACES, TEMPLATES
from jaxmas.types import Environment, TeamObservation

FORBIDDEN = -1e9
"""The logit of what cannot be chosen: no probability, and no infinities in gradients."""


class Decision(NamedTuple):
    """One decision of a design, for people to read."""

    what: str
    value: str
    probability: float
    """Of this value, given the decisions before."""


def _log_probs(logits: Array) -> Array:
    return jax.nn.log_softmax(logits, axis=-1)


def _entropy(logits: Array) -> Array:
    scores = _log_probs(logits)
    return -jnp.sum(jnp.exp(scores) * scores, axis=-1)


def _score(logits: Array, choice: Int[Array, "*s"]) -> Array:
    return jnp.take_along_axis(_log_probs(logits), choice[..., None], axis=-1)[..., 0]


class TemplateHead(nn.Module):
    """Scores every template: a sum of scores of its parts, which templates share, and one of its own."""

    parts: tuple[int, ...]
    table: tuple[tuple[int, ...], ...]
    """For each template, the value of each part."""

    @nn.compact
    def __call__(self, summary: Float[Array, "width"]) -> Float[Array, "templates"]:
        """Return one logit per template."""
        table = jnp.array(self.table)
        logits = nn.Dense(len(self.table), kernel_init=nn.initializers.zeros)(summary)
        for index, values in enumerate(self.parts):
            logits = logits + nn.Dense(values, kernel_init=nn.initializers.zeros)(summary)[table[:, index]]
        return logits


class TemplateNetwork(nn.Module):
    """Team observation to template scores and a value."""

    parts: tuple[int, ...]
    table: tuple[tuple[int, ...], ...]
    width: int

    @nn.compact
    def __call__(self, team: TeamObservation) -> tuple[Float[Array, "templates"], Float[Array, ""]]:
        """Return template logits and the value of the query."""
        summary, _, _ = TeamEncoder(self.width)(team)
        hidden = nn.relu(nn.Dense(self.width)(summary))
        value = MLP((self.width,), 1)(summary)[0]
        return TemplateHead(self.parts, self.table)(hidden), value


@dataclasses.dataclass(frozen=True)
class TemplateSpace:
    """A choice among the environment's plan templates: where learning is easy."""

    name: ClassVar[str] = "template"
    env: Environment
    width: int = 128

    @property
    def network(self) -> TemplateNetwork:
        """Return the network that parametrises the choice."""
        rows = TEMPLATES[self.env.family].rows
        values = [sorted(set(column)) for column in zip(*rows, strict=True)]
        table = tuple(tuple(known.index(v) for known, v in zip(values, row, strict=True)) for row in rows)
        return TemplateNetwork(tuple(len(known) for known in values), table, self.width)

    def sample(self, outputs: Array, key: PRNGKeyArray, team: TeamObservation) -> Int[Array, ""]:
        """Draw a template."""
        return jax.random.categorical(key, outputs)

    def mode(self, outputs: Array, team: TeamObservation) -> Int[Array, ""]:
        """Return the likeliest template."""
        return jnp.argmax(outputs)

    def score(
        self, outputs: Array, choice: Int[Array, ""], team: TeamObservation
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Return the log-probability of a template and the entropy over templates."""
        return _score(outputs, choice), _entropy(outputs)

    def propose(self, key: PRNGKeyArray, team: TeamObservation) -> Int[Array, ""]:
        """Draw any template."""
        return jax.random.randint(key, (), 0, len(TEMPLATES[self.env.family].rows))

    def vary(self, key: PRNGKeyArray, choice: Int[Array, ""], team: TeamObservation) -> Int[Array, ""]:
        """Draw one of the templates that differ from this in the fewest parts."""
        rows = jnp.array(TEMPLATES[self.env.family].rows)
        parts = jnp.sum(rows != rows[choice], axis=1)
        nearest = jnp.min(jnp.where(parts > 0, parts, rows.shape[1] + 1))
        return jax.random.categorical(key, jnp.where(parts == nearest, 0.0, -jnp.inf))

    def valid(self, choice: Int[Array, ""], team: TeamObservation) -> Bool[Array, ""]:
        """Return whether the choice is one: always."""
        return choice >= 0

    def from_template(self, row: Int[Array, ""]) -> Int[Array, ""]:
        """Return the choice that builds a template."""
        return row

    def to_plan(self, choice: Int[Array, ""], team: TeamObservation) -> Plan:
        """Build the chosen template for this query."""
        templates = TEMPLATES[self.env.family]
        return templates.build(self.env, jax.tree.map(lambda column: column[choice], templates.table()), team)

    def explain(self, outputs: Array, choice: Int[Array, ""], team: TeamObservation) -> list[Decision]:
        """Return the chosen template, and the likeliest others."""
        templates, probs = TEMPLATES[self.env.family], jax.nn.softmax(outputs)
        others = [int(row) for row in jnp.argsort(-probs)[:5] if row != choice]
        rows = [("template", int(choice)), *(("or", row) for row in others[:4])]
        return [Decision(what, templates.describe(templates.rows[row]), float(probs[row])) for what, row in rows]


class SlotsNetwork(nn.Module):
    """Team observation to scores of a template and of edits of each slot, and a value."""

    templates: TemplateNetwork
    num_roles: int
    num_tiers: int
    max_quorum: int
    width: int
    keep: float
    """Initial preference for leaving a slot as the template has it."""

    @nn.compact
    def __call__(self, team: TeamObservation) -> tuple[dict[str, Array], Float[Array, ""]]:
        """Return logits by head (index 0 keeps what the template says) and the value of the query."""
        summary, tasks, agents = TeamEncoder(self.width)(team)
        hidden = nn.relu(nn.Dense(self.width)(summary))
        template = TemplateHead(self.templates.parts, self.templates.table)(hidden)
        slots = nn.relu(nn.Dense(self.width)(jnp.concatenate([agents, jnp.tile(hidden, (len(agents), 1))], axis=-1)))

        def edits(name: str, count: int) -> Array:
            scores = nn.Dense(1 + count, name=name, kernel_init=nn.initializers.zeros)(slots)
            return scores.at[..., 0].add(self.keep)

        query = nn.Dense(self.width, name="task_query", kernel_init=nn.initializers.zeros)(slots)
        match = query @ nn.Dense(self.width, name="task_key")(tasks).T / jnp.sqrt(self.width)
        match = jnp.where(team.task_mask, match, FORBIDDEN)
        stay = jnp.full((len(agents), 1), self.keep)
        quorum = nn.Dense(1 + self.max_quorum, name="quorum", kernel_init=nn.initializers.zeros)(tasks)
        logits = {
            "template": template,
            "active": edits("active", 1),
            "role": edits("role", self.num_roles),
            "tier": edits("tier", self.num_tiers),
            "task": jnp.concatenate([stay, match], axis=-1),
            "quorum": quorum.at[..., 0].add(self.keep),
        }
        return logits, MLP((self.width,), 1)(summary)[0]


@dataclasses.dataclass(frozen=True)
class SlotsSpace:
    """Categorical heads per agent slot, over attention between slots and tasks, on top of a template.

    The template co-ordinates the slots; each head then keeps what the template says or replaces it. It works in every
    environment and at any number of agents.
    """

    name: ClassVar[str] = "slots"
    env: Environment
    width: int = 128
    keep: float = 6.0

    @property
    def network(self) -> SlotsNetwork:
        """Return the network that parametrises the choice."""
        space = self.env.plan_space
        templates = TemplateSpace(self.env, self.width).network
        return SlotsNetwork(templates, space.num_roles, space.num_tiers, space.max_quorum, self.width, self.keep)

    def sample(self, outputs: dict[str, Array], key: PRNGKeyArray, team: TeamObservation) -> dict[str, Array]:
        """Draw a template and an edit per head and slot."""
        keys = dict(zip(sorted(outputs), jax.random.split(key, len(outputs)), strict=True))
        return {name: jax.random.categorical(keys[name], logits) for name, logits in outputs.items()}

    def mode(self, outputs: dict[str, Array], team: TeamObservation) -> dict[str, Array]:
        """Return the likeliest template and edits."""
        return {name: jnp.argmax(logits, axis=-1) for name, logits in outputs.items()}

    def score(
        self, outputs: dict[str, Array], choice: dict[str, Array], team: TeamObservation
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Return the joint log-probability, and the entropy of the template alone: edits are rare by design."""
        log_prob = sum((jnp.sum(_score(outputs[name], choice[name])) for name in outputs), jnp.float32(0))
        return log_prob, _entropy(outputs["template"])

    def propose(self, key: PRNGKeyArray, team: TeamObservation) -> dict[str, Array]:
        """Draw any template, without edits."""
        return self.from_template(TemplateSpace(self.env, self.width).propose(key, team))

    def vary(self, key: PRNGKeyArray, choice: dict[str, Array], team: TeamObservation) -> dict[str, Array]:
        """Change the template a little, or draw one edit in eight anew."""
        base_key, edit_key, side_key = jax.random.split(key, 3)
        space = self.env.plan_space
        counts = {"active": 1, "role": space.num_roles, "tier": space.num_tiers, "task": space.num_tasks}
        edited = dict(choice)
        for name, count in {**counts, "quorum": space.max_quorum}.items():
            which_key, draw_key = jax.random.split(jax.random.fold_in(edit_key, sorted(choice).index(name)))
            shape = choice[name].shape
            anew = jax.random.randint(draw_key, shape, 0, 1 + count)
            if name == "task":
                anew = jnp.where(team.task_mask[anew - 1], anew, 0)
            edited[name] = jnp.where(jax.random.bernoulli(which_key, 1 / 8, shape), anew, choice[name])
        template = TemplateSpace(self.env, self.width).vary(base_key, choice["template"], team)
        other = {**choice, "template": template.astype(jnp.int32)}
        edits = jax.random.bernoulli(side_key)
        return jax.tree.map(lambda one, two: jnp.where(edits, one, two), edited, other)

    def valid(self, choice: dict[str, Array], team: TeamObservation) -> Bool[Array, ""]:
        """Return whether the choice is one: always."""
        return choice["template"] >= 0

    def from_template(self, row: Int[Array, ""]) -> dict[str, Array]:
        """Return the choice that builds a template and edits nothing."""
        tasks = self.env.plan_space.num_tasks
        slots = {name: jnp.zeros(self.env.num_agents, jnp.int32) for name in ("active", "role", "tier", "task")}
        return {"template": row, **slots, "quorum": jnp.zeros(tasks, jnp.int32)}

    def to_plan(self, choice: dict[str, Array], team: TeamObservation) -> Plan:
        """Build the template and edit its slots."""
        base = TemplateSpace(self.env, self.width).to_plan(choice["template"], team)

        def edit(name: str, current: Array) -> Array:
            return jnp.where(choice[name] == 0, current, choice[name] - 1)

        active = jnp.where(choice["active"] == 1, ~base.active, base.active)
        quorum = jnp.where(choice["quorum"] == 0, base.quorum, choice["quorum"])
        plan = dataclasses.replace(
            base,
            active=active,
            role=edit("role", base.role),
            tier=edit("tier", base.tier),
            task=edit("task", base.task),
            quorum=quorum,
        )
        return self.env.plan_space.project(plan)[0]

    def explain(self, outputs: dict[str, Array], choice: dict[str, Array], team: TeamObservation) -> list[Decision]:
        """Return the template, and every edit that is made."""
        decisions = TemplateSpace(self.env, self.width).explain(outputs["template"], choice["template"], team)[:1]
        for name in ("active", "role", "tier", "task", "quorum"):
            probs = jax.nn.softmax(outputs[name])
            for place in map(int, jnp.flatnonzero(choice[name])):
                value = int(choice[name][place])
                where = "task" if name == "quorum" else "slot"
                shown = "switched" if name == "active" else str(value if name == "quorum" else value - 1)
                decisions.append(Decision(f"{name} of {where} {place}", shown, float(probs[place, value])))
        return decisions


DESIGN_SPACES.add("template", TemplateSpace, "a choice among parametrised plan templates")
DESIGN_SPACES.add("slots", SlotsSpace, "per-slot heads over attention to tasks, on top of a template")


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
