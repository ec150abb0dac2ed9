"""MetaAgent-X-style (simulated): a designer that writes programs and the executors that carry them out learn together.

| | MetaAgent-X (arXiv 2605.14212) | here |
|---|---|---|
| designer and executors | language models | a script decoder over the team observation; small networks |
| reward | answers checked, code run | the scenario's reward of an execution |
| advantage | over the group's spread | over the batch's, which learns better here; ``advantage="group"`` is the other |
| executors learn from | the outcome | half of it from their own answers; ``agent_weight=0`` is the outcome alone |
| invalid design | lowest reward | the batch's lowest, at most ``invalid_reward``; executors learn nothing of it |
| warm start, designer | a stronger model's designs | templates, likelier the more they earn at the start |
| warm start, executors | a stronger model's solutions | ``--executor``: networks made by imitation are package data |
| freezing | stagewise, executor first | the same, hard or by learning rate |

One update plays M designs per query and N executions of each; then come credit and both sides' steps (``co_training``).
"""

import dataclasses
import functools
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jaxmas.co_training import learn_designer, learn_executor, optimisers, take_turns, turns
from jaxmas.decisions import collector, decisions_under, merge
from jaxmas.design_policies import LearnedPolicy
from jaxmas.errors import check_numbers, refuse
from jaxmas.executors import Trainable, UntrainedExecutor, build, feature_size, starting_params
from jaxmas.groups import GroupSizes, play_groups, returns, valid_designs
from jaxmas.learning import against_the_others, group_normalised
from jaxmas.logs import log_decisions, log_designs, log_plays
from jaxmas.policies import TemplatePolicy
from jaxmas.pytrees import pytree
from jaxmas.registry import ALGORITHMS, DESIGN_SPACES
from jaxmas.rollout import Policies
from jaxmas.types import Environment
from jaxmas.warm_start import imitate_templates


@dataclasses.dataclass(frozen=True)
class MetaAgentXConfig:
    """Settings of MetaAgent-X."""

    mode: Literal["stagewise", "coupled", "designer-only", "executor-only"] = "stagewise"
    """Who learns: by turns, executors first; both at once; or one side."""
    swap_every: int = 10
    """Stagewise: updates between turns (K)."""
    freeze: Literal["hard", "soft"] = "hard"
    """Stagewise: the side that has not its turn stands still, or learns at ``soft_rate`` of its learning rate."""
    soft_rate: float = 0.1
    space: Literal["script", "script-free", "template", "slots", "pairs"] = "script"
    """How the designer expresses a plan."""
    plans_by: str = ""
    """Executor-only: who plans instead of the designer: ``strategy:NAME`` or the directory of a run."""
    updates: int = 400
    queries: int = 48
    """Queries per update."""
    designs: int = 4
    """Per query (M)."""
    executions: int = 4
    """Per design (N)."""
    shared_noise: bool = True
    """Let the designs of one query meet the same environment noise, execution by execution."""
    executor_group: Literal["question", "design"] = "question"
    """What an execution is measured against: all M·N of its query, or the N of its design."""
    advantage: Literal["group", "batch"] = "batch"
    """Divide by the group's spread, as published, or by the batch's: queries on which all agree are not blown up."""
    agent_weight: float = 0.5
    """Share of an agent's own reward in what executors learn from; the rest is the team's."""
    agent_discount: float = 0.0
    """How much an agent's own later rewards count for a decision, per step; 0 is its own reward at that step alone."""
    invalid_reward: float = -1.0
    designer_rate: float = 3e-3
    executor_rate: float = 3e-3
    """Learning rates; both fall to a tenth."""
    designer_entropy: float = 0.05
    executor_entropy: float = 0.003
    kl: float = 0.0
    """Weight of the divergence of both sides from where they started."""
    epochs: int = 2
    """Passes over the batch of an update."""
    clip: float = 0.2
    max_gradient: float = 1.0
    discount: float = 1.0
    width: int = 128
    """Of the designer."""
    network: Literal["mlp", "gru"] = "mlp"
    """Of the executors."""
    executor_width: int = 64
    executor_layers: int = 2
    per_role: bool = False
    """Train one executor network per role."""
    capacity: int = 16
    """Decisions per play that executors learn from, on average over the update."""
    sequence: int = 4
    """With ``gru``: decisions of an agent that are learned from, its first so many; an agent takes up room for all."""
    warm_start: int = 200
    """Supervised steps of the designer before the first update."""
    warm_queries: int = 16
    """Queries that every template is tried on for it."""
    warm_temperature: float = 0.05
    """Templates are imitated in proportion to exp(reward / temperature)."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot be."""
        check = functools.partial(check_numbers, "metaagent-x", self)
        check(("swap_every", "updates", "queries", "designs", "executions", "epochs", "width", "capacity"), 1)
        check(("sequence", "executor_width", "executor_layers", "warm_queries"), 1)
        check(("soft_rate", "designer_rate", "executor_rate", "designer_entropy", "executor_entropy", "kl", "clip"), 0)
        check(("max_gradient", "warm_start"), 0)
        check(("discount", "agent_weight", "agent_discount"), 0, 1)
        refuse(not math.isfinite(self.invalid_reward), "metaagent-x: invalid_reward has to be a finite number")
        refuse(self.warm_temperature <= 0, "metaagent-x: warm_temperature has to be above 0")
        refuse(
            self.mode != "executor-only" and self.designs < 2,
            "metaagent-x: a designer learns by comparing designs; it needs designs of at least 2",
        )
        group = self.executions * (self.designs if self.executor_group == "question" else 1)
        refuse(
            self.mode != "designer-only" and group < 2,
            f"metaagent-x: a group of one execution teaches executors nothing; {self.executor_group} needs more",
        )
        refuse(
            bool(self.plans_by) and self.mode != "executor-only",
            f"metaagent-x: plans_by is for executor-only; in {self.mode} the designer plans",
        )

    @property
    def sizes(self) -> GroupSizes:
        """Return what is played in an update; designs by who does not learn are no more than further executions."""
        return GroupSizes(self.queries, self.designs, self.executions, self.shared_noise and not self.plans_by)

    def design_policy(self, env: Environment, greedy: bool = False) -> LearnedPolicy:
        """Return the designer."""
        return LearnedPolicy(DESIGN_SPACES[self.space](env, self.width), greedy)

    def network_of(self, env: Environment) -> Trainable:
        """Return the executors' network."""
        roles = env.plan_space.num_roles if self.per_role else 0
        sizes = {"width": self.executor_width, "layers": self.executor_layers}
        return build(env.num_actions, network=self.network, roles=roles, **sizes)

    def designer(self, env: Environment, state: "TrainState", greedy: bool = False) -> tuple[LearnedPolicy, Any] | None:
        """Return the designer and its parameters; None where others plan."""
        return None if self.plans_by else (self.design_policy(env, greedy), state.params["designer"])

    def executor(self, env: Environment, state: "TrainState") -> tuple[Trainable, Any]:
        """Return the executors' network and its parameters."""
        return self.network_of(env), state.params["executor"]

    def initial_state(
        self, env: Environment, params: Any, key: PRNGKeyArray, start: Policies | None = None
    ) -> "TrainState":
        """Return the state before the first update, after the warm start."""
        return initial_state(self, env, params, key, start)

    def update(self, env: Environment, params: Any, start: Policies, state: "TrainState"):
        """Play and learn once."""
        return update(self, env, params, start, state)


@pytree
class TrainState:
    """All that a run needs to go on; dictionaries hold ``designer`` and ``executor``."""

    params: dict[str, Any]
    optimiser: dict[str, Any]
    start: dict[str, Any]
    """The parameters to stay near to; empty without a divergence to pay for."""
    key: PRNGKeyArray
    update: Int[Array, ""]


def update(
    config: MetaAgentXConfig, env: Environment, params: Any, start: Policies, state: TrainState
) -> tuple[TrainState, dict[str, Array]]:
    """Play every execution of every design of every query, and let the side learn whose turn it is."""
    key, query_key, play_key = jax.random.split(state.key, 3)
    designer, executor = config.design_policy(env), config.network_of(env)
    policies = Policies(designer, state.params["designer"], executor, state.params["executor"])
    if config.plans_by:
        policies = dataclasses.replace(policies, meta=start.meta, meta_params=start.meta_params)
    options: dict[str, Any] = {"discount": config.discount, "collect": collector(config, executor)}
    steps, parts = play_groups(env, params, policies, query_key, play_key, config.sizes, **options)
    earned, valid = returns(steps), valid_designs(steps)
    decisions = decisions_under(merge(parts), valid)
    of_designer, of_executor = credit(config, earned, valid)
    progress = state.update / config.updates
    learners = {
        "designer": functools.partial(learn_designer, config, designer, steps, of_designer, progress),
        "executor": functools.partial(learn_executor, config, executor, decisions, of_executor, progress),
    }
    if config.plans_by:
        del learners["designer"]
    after, logs = take_turns(config, state, turns(config, state.update), learners)
    logs |= log_plays(steps, earned) | log_designs(steps, earned, valid) | log_decisions(decisions, env)
    return dataclasses.replace(after, key=key, update=state.update + 1), logs


def designer_rewards(
    config: MetaAgentXConfig, earned: Float[Array, "queries designs executions"], valid: Bool[Array, "queries designs"]
) -> Float[Array, "queries designs"]:
    """Return the mean over a design's executions; for an invalid one the lowest of the batch, or less."""
    mean = jnp.mean(earned, axis=-1)
    lowest = jnp.min(jnp.where(valid, mean, jnp.inf))
    return jnp.where(valid, mean, jnp.minimum(lowest, config.invalid_reward))


def credit(
    config: MetaAgentXConfig, earned: Float[Array, "queries designs executions"], valid: Bool[Array, "queries designs"]
) -> tuple[Float[Array, "queries designs"], Float[Array, "queries designs executions"]]:
    """Return the advantages of designs and of executions, each measured within its group.

    A designer's group is the designs of one query; an executor's all executions of the query or those of the design.
    Executions of invalid designs are no one's, and get none.
    """
    relative = {"group": group_normalised, "batch": against_the_others}[config.advantage]
    rewards = designer_rewards(config, earned, valid)
    plays = jnp.broadcast_to(valid[..., None], earned.shape)
    shape = earned.shape
    if config.executor_group == "question":
        earned, plays = (leaf.reshape(len(leaf), -1) for leaf in (earned, plays))
    return relative(rewards, jnp.ones_like(valid)), relative(earned, plays).reshape(shape)


def initial_state(
    config: MetaAgentXConfig, env: Environment, params: Any, key: PRNGKeyArray, start: Policies | None
) -> TrainState:
    """Return the state before the first update; without ``start`` both sides are fresh."""
    designer_key, executor_key, team_key, warm_key, key = jax.random.split(key, 5)
    _, team = env.reset(team_key, params)
    begun, given = (UntrainedExecutor(), None) if start is None else (start.executor, start.executor_params)
    weights = {
        "designer": config.design_policy(env).initial_params(designer_key, team),
        "executor": starting_params(config.network_of(env), begun, given, executor_key, feature_size(env, params)),
    }
    if start is not None and config.warm_start and not config.plans_by:
        policies = Policies(TemplatePolicy(env), None, config.network_of(env), weights["executor"])
        weights["designer"] = imitate_templates(
            env, params, policies, config.design_policy(env), weights["designer"], warm_key,
            steps=config.warm_start, queries=config.warm_queries, temperature=config.warm_temperature,
            learning_rate=config.designer_rate,
        )  # fmt: skip
    moments = {side: rule.init(weights[side]) for side, rule in optimisers(config).items()}
    return TrainState(weights, moments, weights if config.kl else {}, key, jnp.int32(0))


ALGORITHMS.add("metaagent-x", MetaAgentXConfig, "designer and executors learn together, by turns or at once")
