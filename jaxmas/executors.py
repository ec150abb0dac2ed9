"""Executors: the small policy that every agent runs at each step.

``MLPExecutor``, ``GRUExecutor`` and ``PerRole`` of either are networks that learners train: beside ``apply``, which
plays, they have ``unroll``, which looks back at rows of remembered steps, and ``initial_params``.
"""

import dataclasses
import functools
import json
from importlib import resources
from typing import Any, Literal, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jaxmas.checkpoints import load_params
from jaxmas.distributions import Categorical
from jaxmas.errors import JaxmasError
from jaxmas.networks import MLP
from jaxmas.registry import EXECUTORS
from jaxmas.types import Environment, Executor, Observation


@runtime_checkable
class Trainable(Executor, Protocol):
    """An executor that is a network."""

    @property
    def outputs(self) -> int:
        """Return the number of outputs: actions, or one for a critic."""
        ...

    @property
    def recurrent(self) -> bool:
        """Return whether it remembers, so that its rows are whole sequences."""
        ...

    def initial_params(self, key: PRNGKeyArray, features: int) -> Any:
        """Return fresh parameters for that many input features."""
        ...

    def unroll(
        self,
        params: Any,
        features: Float[Array, "rows time features"],
        role: Int[Array, "rows time"],
        acting: Bool[Array, "rows time"],
    ) -> Float[Array, "rows time outputs"]:
        """Return the outputs for rows of remembered steps, each row from the start of its agent's episode."""
        ...


@dataclasses.dataclass(frozen=True)
class MLPExecutor:
    """A feed-forward network shared by all agents; role and tier are among its inputs."""

    outputs: int
    hidden: tuple[int, ...] = (64, 64)
    recurrent = False

    @property
    def network(self) -> MLP:
        """Return the network."""
        return MLP(self.hidden, self.outputs)

    def logits(self, params: Any, features: Float[Array, "*batch features"]) -> Float[Array, "*batch outputs"]:
        """Return action scores, illegal actions included."""
        return jnp.asarray(self.network.apply(params, features))

    def initial_params(self, key: PRNGKeyArray, features: int) -> Any:
        """Return fresh parameters, at which every action is alike."""
        return _flat_start(self.network.init(key, jnp.zeros((1, features))))

    def unroll(self, params: Any, features: Array, role: Array, acting: Array) -> Array:
        """Return the outputs of every step by itself."""
        return self.logits(params, features)

    def init(self, num_agents: int) -> tuple:
        """Return the empty carry of a feed-forward policy."""
        return ()

    def step(self, params: Any, carry: tuple, observation: Observation, mask: Bool[Array, "num_agents"]) -> tuple:
        """Return the carry and the outputs."""
        return carry, self.logits(params, observation.features)

    def apply(
        self, params: Any, carry: tuple, observation: Observation, mask: Bool[Array, "num_agents"], key: PRNGKeyArray
    ) -> tuple[tuple, Categorical]:
        """Return the action distribution, illegal actions excluded."""
        return _act(self, params, carry, observation, mask)


class GRU(nn.Module):
    """A gated recurrent unit between two dense layers."""

    hidden: int
    outputs: int

    @nn.compact
    def __call__(self, carry: Float[Array, "*batch hidden"], x: Float[Array, "*batch inputs"]) -> tuple[Array, Array]:
        """Return the next carry and one output row per input row."""
        carry, x = nn.GRUCell(self.hidden)(carry, nn.relu(nn.Dense(self.hidden)(x)))
        return carry, nn.Dense(self.outputs)(x)


@dataclasses.dataclass(frozen=True)
class GRUExecutor:
    """A recurrent network shared by all agents: each remembers the steps at which it acted in this episode."""

    outputs: int
    hidden: int = 64
    recurrent = True

    @property
    def network(self) -> GRU:
        """Return the network."""
        return GRU(self.hidden, self.outputs)

    def initial_params(self, key: PRNGKeyArray, features: int) -> Any:
        """Return fresh parameters, at which every action is alike."""
        return _flat_start(self.network.init(key, jnp.zeros((1, self.hidden)), jnp.zeros((1, features))))

    def unroll(self, params: Any, features: Array, role: Array, acting: Array) -> Array:
        """Return the outputs along every row's sequence."""

        def forward(carry, step):
            now, mask = step
            return self._remember(params, carry, now, mask)

        steps = jnp.moveaxis(features, 1, 0), jnp.moveaxis(acting, 1, 0)
        _, outputs = jax.lax.scan(forward, self.init(len(features)), steps)
        return jnp.moveaxis(outputs, 0, 1)

    def init(self, num_agents: int) -> Float[Array, "num_agents hidden"]:
        """Return the carry of agents that remember nothing."""
        return jnp.zeros((num_agents, self.hidden))

    def step(self, params: Any, carry: Array, observation: Observation, mask: Bool[Array, "num_agents"]) -> tuple:
        """Return the next carry and the outputs; who does not act remembers what it did before."""
        return self._remember(params, carry, observation.features, mask)

    def _remember(self, params: Any, carry: Array, features: Array, mask: Array) -> tuple[Array, Array]:
        after, outputs = self.network.apply(params, carry, features)
        return jnp.where(mask[:, None], after, carry), jnp.asarray(outputs)

    def apply(
        self, params: Any, carry: Array, observation: Observation, mask: Bool[Array, "num_agents"], key: PRNGKeyArray
    ) -> tuple[Array, Categorical]:
        """Return the next carry and the action distribution, illegal actions excluded."""
        return _act(self, params, carry, observation, mask)


@dataclasses.dataclass(frozen=True)
class PerRole:
    """One network per role, all of one shape: parameters have a leading axis of roles.

    Every row goes through every network and keeps its own role's output: as much work as there are roles.
    """

    base: MLPExecutor | GRUExecutor
    roles: int

    @property
    def outputs(self) -> int:
        """Return the number of outputs."""
        return self.base.outputs

    @property
    def recurrent(self) -> bool:
        """Return whether it remembers."""
        return self.base.recurrent

    def initial_params(self, key: PRNGKeyArray, features: int) -> Any:
        """Return fresh parameters, other ones for every role."""
        return jax.vmap(self.base.initial_params, in_axes=(0, None))(jax.random.split(key, self.roles), features)

    def unroll(self, params: Any, features: Array, role: Array, acting: Array) -> Array:
        """Return each step's outputs by the network of the role that its agent had."""
        # An agent remembers in the terms of each role's network, so that a change of role is met with its own memory.
        every = jax.vmap(self.base.unroll, in_axes=(0, None, None, None))(params, features, role, acting)
        return _of_role(every, role)

    def init(self, num_agents: int) -> Any:
        """Return the carries of agents that remember nothing, one per role's network."""
        return jax.tree.map(lambda leaf: jnp.tile(leaf, (self.roles, 1, 1)), self.base.init(num_agents))

    def apply(
        self, params: Any, carry: Any, observation: Observation, mask: Bool[Array, "num_agents"], key: PRNGKeyArray
    ) -> tuple[Any, Categorical]:
        """Return the next carry and the action distribution, illegal actions excluded."""
        return _act(self, params, carry, observation, mask)

    def step(self, params: Any, carry: Any, observation: Observation, mask: Bool[Array, "num_agents"]) -> tuple:
        """Return the next carries and the outputs."""
        carry, every = jax.vmap(self.base.step, in_axes=(0, 0, None, None))(params, carry, observation, mask)
        return carry, _of_role(every, observation.role)


def build(
    outputs: int, *, network: Literal["mlp", "gru"] = "mlp", width: int = 64, layers: int = 2, roles: int = 0
) -> Trainable:
    """Return a network to train; with ``roles`` one for each of them. ``layers`` are those of a feed-forward one."""
    base = GRUExecutor(outputs, width) if network == "gru" else MLPExecutor(outputs, (width,) * layers)
    return PerRole(base, roles) if roles else base


@functools.cache
def read_frozen(name: str) -> tuple[Any, dict[str, Any]]:
    """Return the weights and metadata of a network that ships with the package, checked against its SHA-256."""
    folder = resources.files("jaxmas") / "data"
    checksums = json.loads((folder / "executors.json").read_text())
    with resources.as_file(folder / f"{name}.npz") as path:
        return load_params(path, checksums[name]["sha256"])


def starting_params(executor: Trainable, start: Executor, params: Any, key: PRNGKeyArray, features: int) -> Any:
    """Return what training begins with: the parameters of a like ``start``, fresh ones if that is untrained."""
    if start == executor:
        return params
    if isinstance(executor, PerRole) and start == executor.base:
        return jax.tree.map(lambda leaf: jnp.tile(leaf, (executor.roles,) + (1,) * jnp.ndim(leaf)), params)
    if isinstance(start, UntrainedExecutor):
        return executor.initial_params(key, features)
    raise JaxmasError(
        f"training cannot go on from {start}: the network to train is {executor}; begin with --executor untrained, or "
        "with a network of the same shape, such as frozen-90 with the default sizes"
    )


def feature_size(env: Environment, params: Any) -> int:
    """Return how many features an agent sees."""

    def see():
        state, _ = env.reset(jax.random.key(0), params)
        return env.coordinate(jax.random.key(0), state, env.plan_space.empty(), params)[1]

    return jax.eval_shape(see).features.shape[-1]


@dataclasses.dataclass(frozen=True)
class UntrainedExecutor:
    """Takes every legal action with the same chance: where training starts from scratch."""

    def init(self, num_agents: int) -> tuple:
        """Return the empty carry."""
        return ()

    def apply(self, params: None, carry: tuple, observation: Observation, mask, key) -> tuple[tuple, Categorical]:
        """Return the uniform distribution over legal actions."""
        return carry, legal(jnp.zeros(observation.action_mask.shape), observation.action_mask)


def legal(logits: Float[Array, "*rows actions"], action_mask: Bool[Array, "*rows actions"]) -> Categorical:
    """Return the distribution over legal actions."""
    return Categorical(logits=jnp.where(action_mask, logits, -1e9))


def _act(executor: Any, params: Any, carry: Any, observation: Observation, mask: Array) -> tuple[Any, Categorical]:
    carry, logits = executor.step(params, carry, observation, mask)
    return carry, legal(logits, observation.action_mask)


def _of_role(every: Float[Array, "roles *rows outputs"], role: Int[Array, "*rows"]) -> Float[Array, "*rows outputs"]:
    return jnp.take_along_axis(every, role[None, ..., None], axis=0)[0]


def _flat_start(params: Any) -> Any:
    """Set the last layer to zero."""
    layers = params["params"]
    last = max((name for name in layers if name.startswith("Dense")), key=lambda name: int(name.split("_")[1]))
    return {"params": {**layers, last: jax.tree.map(jnp.zeros_like, layers[last])}}


EXECUTORS.add("untrained", lambda env, params: (UntrainedExecutor(), None), "takes any action: to train from scratch")
