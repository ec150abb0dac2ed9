"""IPPO and MAPPO: executors that learn under any meta-policy, each agent from its own decisions.

Independent PPO (de Witt et al. 2020, arXiv 2011.09533) values what the agent itself sees; multi-agent PPO (Yu et al.
2022, arXiv 2103.01955) adds what the designer sees of the whole team. Parameters are shared by all agents, or by all
that have one role. The file reads in the order of an update: play → advantages → loss → step.
"""

import dataclasses
import functools
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PRNGKeyArray

from jaxmas.critics import Critic
from jaxmas.decisions import Decisions, Rows, advantages, collector, mean_over, merge, score
from jaxmas.devices import split
from jaxmas.errors import check_numbers, refuse
from jaxmas.executors import Trainable, UntrainedExecutor, build, feature_size, starting_params
from jaxmas.groups import GroupSizes, play_groups
from jaxmas.learning import clipped_surrogate, falling_adam, linear
from jaxmas.logs import log_decisions, log_plays
from jaxmas.pytrees import pytree
from jaxmas.registry import ALGORITHMS
from jaxmas.rollout import Policies
from jaxmas.types import Environment, TeamObservation


@dataclasses.dataclass(frozen=True)
class IPPOConfig:
    """Settings of IPPO."""

    central: ClassVar[bool] = False
    plans_by: str = "strategy:random"
    """Who plans: ``strategy:NAME`` or the directory of a run."""
    network: Literal["mlp", "gru"] = "mlp"
    width: int = 64
    layers: int = 2
    """Hidden layers of the feed-forward network."""
    per_role: bool = False
    """Train one network per role."""
    updates: int = 200
    queries: int = 128
    """Queries per update."""
    capacity: int = 16
    """Decisions per query that are learned from, on average over the update."""
    sequence: int = 4
    """With ``gru``: decisions of an agent that are learned from, its first so many; an agent takes up room for all."""
    agent_weight: float = 0.5
    """Share of an agent's own reward in what it learns from; the rest is the team's."""
    learning_rate: float = 1e-3
    entropy: float = 0.01
    final_entropy: float = 0.001
    max_gradient: float = 0.5
    epochs: int = 4
    """Passes over the batch of an update."""
    minibatches: int = 4
    clip: float = 0.2
    discount: float = 1.0
    trace: float = 0.95
    value_weight: float = 0.5

    def __post_init__(self) -> None:
        """Refuse settings that cannot be."""
        who = "mappo" if self.central else "ippo"
        check = functools.partial(check_numbers, who, self)
        check(("width", "layers", "updates", "queries", "capacity", "sequence", "epochs", "minibatches"), 1)
        check(("learning_rate", "entropy", "final_entropy", "max_gradient", "clip", "value_weight"), 0)
        check(("agent_weight", "discount", "trace"), 0, 1)
        rows = self.queries * self.capacity // (self.sequence if self.network == "gru" else 1)
        refuse(rows < self.minibatches, f"{who}: {rows} rows do not fill {self.minibatches} minibatches")

    @property
    def sizes(self) -> GroupSizes:
        """Return what is played in an update."""
        return GroupSizes(self.queries)

    def network_of(self, env: Environment) -> Trainable:
        """Return the network that is trained."""
        roles = env.plan_space.num_roles if self.per_role else 0
        return build(env.num_actions, network=self.network, width=self.width, layers=self.layers, roles=roles)

    def designer(self, env: Environment, state: "TrainState", greedy: bool = False) -> None:
        """Return nothing: no designer is trained."""

    def executor(self, env: Environment, state: "TrainState") -> tuple[Trainable, Any]:
        """Return the trained executor and its parameters."""
        return self.network_of(env), state.params["executor"]

    def initial_state(
        self, env: Environment, params: Any, key: PRNGKeyArray, start: Policies | None = None
    ) -> "TrainState":
        """Return the state before the first update."""
        return initial_state(self, env, params, key, start)

    def update(self, env: Environment, params: Any, start: Policies, state: "TrainState"):
        """Play and learn once."""
        return update(self, env, params, start, state)


@dataclasses.dataclass(frozen=True)
class MAPPOConfig(IPPOConfig):
    """Settings of MAPPO."""

    central: ClassVar[bool] = True


@pytree
class TrainState:
    """All that a run needs to go on."""

    params: dict[str, Any]
    """Of the executor and of its critic."""
    optimiser: Any
    key: PRNGKeyArray
    update: Int[Array, ""]


def critic_of(config: IPPOConfig, env: Environment) -> Critic:
    """Return the critic: a network like the executor's, shared by all roles."""
    network = build(1, network=config.network, width=config.width, layers=config.layers)
    return Critic(network, config.central, env.coordination_interval)


def optimiser(config: IPPOConfig) -> optax.GradientTransformation:
    """Return Adam with clipped gradients and a learning rate that falls to a tenth."""
    steps = config.updates * config.epochs * config.minibatches
    return falling_adam(config.learning_rate, steps, config.max_gradient)


def initial_state(
    config: IPPOConfig, env: Environment, params: Any, key: PRNGKeyArray, start: Policies | None
) -> TrainState:
    """Return the state before the first update; without ``start`` the executor is fresh."""
    executor_key, critic_key, team_key, key = jax.random.split(key, 4)
    _, team = env.reset(team_key, params)
    features = feature_size(env, params)
    begun, weights = (UntrainedExecutor(), None) if start is None else (start.executor, start.executor_params)
    both = {
        "executor": starting_params(config.network_of(env), begun, weights, executor_key, features),
        "critic": critic_of(config, env).initial_params(critic_key, features, team),
    }
    return TrainState(both, optimiser(config).init(both), key, jnp.int32(0))


def update(
    config: IPPOConfig, env: Environment, params: Any, start: Policies, state: TrainState
) -> tuple[TrainState, dict[str, Array]]:
    """Play queries, and take the clipped steps of several epochs."""
    key, query_key, play_key, batch_key = jax.random.split(state.key, 4)
    executor, critic = config.network_of(env), critic_of(config, env)
    policies = dataclasses.replace(start, executor=executor, executor_params=state.params["executor"])
    steps, parts = play_groups(
        env,
        params,
        policies,
        query_key,
        play_key,
        config.sizes,
        collect=collector(config, executor),
    )
    teams, decisions = jax.tree.map(lambda leaf: leaf[:, 0, 0], steps.team), merge(parts)
    batch = _batch(config, critic, state.params["critic"], teams, decisions)
    entropy_weight = linear(config.entropy, config.final_entropy, state.update / config.updates)
    loss = functools.partial(_loss, config, executor, critic, teams, entropy_weight)
    (weights, moments), learned = _epochs(config, loss, (state.params, state.optimiser), batch, batch_key)
    logs = log_plays(steps, jnp.sum(steps.reward, axis=-1)) | learned | log_decisions(decisions, env)
    return TrainState(weights, moments, key, state.update + 1), logs


def _batch(
    config: IPPOConfig, critic: Critic, weights: Any, teams: TeamObservation, decisions: Decisions
) -> dict[str, Any]:
    """Return the decisions with their advantages and the values to be learned."""
    rows, rewards = decisions.rows, decisions.rewards
    mixed = (1 - config.agent_weight) * rewards.team[..., None] + config.agent_weight * rewards.agent
    values = critic.values(weights, rows, teams)
    advantage = advantages(rows, values, mixed.reshape(-1, *mixed.shape[-2:]), config.discount, config.trace)
    return {"rows": rows, "advantage": advantage, "target": advantage + values}


def _epochs(config: IPPOConfig, loss: Any, carry: Any, batch: dict[str, Any], key: PRNGKeyArray) -> tuple[Any, dict]:
    """Take a step for every minibatch of every epoch; rows that are left over sit an epoch out."""
    rows = len(batch["advantage"])
    size = rows // config.minibatches
    refuse(size == 0, f"an update has {rows} rows for {config.minibatches} minibatches; raise queries")

    def step(carry, part):
        weights, moments = carry
        (_, learned), gradient = jax.value_and_grad(loss, has_aux=True)(weights, split(part))
        change, moments = optimiser(config).update(gradient, moments)
        return (optax.apply_updates(weights, change), moments), learned

    def epoch(carry, key):
        order = jax.random.permutation(key, len(batch["advantage"]))[: size * config.minibatches]
        order = order.reshape(config.minibatches, size)
        return jax.lax.scan(lambda carry, rows: step(carry, jax.tree.map(lambda leaf: leaf[rows], batch)), carry, order)

    carry, learned = jax.lax.scan(epoch, carry, jax.random.split(key, config.epochs))
    return carry, jax.tree.map(jnp.mean, learned)


def _loss(config, executor: Trainable, critic: Critic, teams, entropy_weight, weights, part) -> tuple[Array, dict]:
    """Return −surrogate + value error − entropy over the decisions of a minibatch."""
    rows: Rows = part["rows"]
    mean = functools.partial(mean_over, rows)
    advantage = part["advantage"] - mean(part["advantage"])
    advantage = advantage / (jnp.sqrt(mean(advantage**2)) + 1e-6)
    log_prob, entropy = score(executor, weights["executor"], rows)
    log_ratio = jnp.where(rows.acting, log_prob - rows.log_prob, 0.0)
    error = 0.5 * (critic.values(weights["critic"], rows, teams) - part["target"]) ** 2
    total = clipped_surrogate(log_ratio, advantage, config.clip) + config.value_weight * error
    learned = {
        "entropy": mean(entropy),
        "value_error": mean(error),
        "clipped": mean((jnp.abs(jnp.exp(log_ratio) - 1) > config.clip).astype(jnp.float32)),
    }
    return mean(total - entropy_weight * entropy), learned


ALGORITHMS.add("ippo", IPPOConfig, "executors learn by PPO, each with a value of what it sees")
ALGORITHMS.add("mappo", MAPPOConfig, "the same with a central value of the whole team")
