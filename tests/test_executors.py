"""Check the networks that learners train: what they play is what they look back at, step by step and role by role."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmas
from jaxmas.errors import JaxmasError
from jaxmas.executors import GRUExecutor, MLPExecutor, PerRole, UntrainedExecutor, build, feature_size, starting_params
from jaxmas.types import Observation

AGENTS, TIME, FEATURES, ACTIONS, ROLES = 6, 5, 3, 4, 3
MLP, GRU = MLPExecutor(ACTIONS, (8, 8)), GRUExecutor(ACTIONS, 8)
NETWORKS = {"mlp": MLP, "gru": GRU, "mlp-per-role": PerRole(MLP, ROLES), "gru-per-role": PerRole(GRU, ROLES)}
every = pytest.mark.parametrize("name", NETWORKS)
LEGAL = np.random.default_rng(3).random((AGENTS, ACTIONS)) < 0.6
LEGAL[:, 1] = True


def stirred(params: Any) -> Any:
    """Return parameters that are not flat any more."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(7), len(leaves))
    return tree.unflatten(
        [leaf + 0.5 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    )


@functools.cache
def fresh(name: str) -> Any:
    return jax.jit(NETWORKS[name].initial_params, static_argnums=1)(jax.random.key(0), FEATURES)


def sequence() -> dict[str, np.ndarray]:
    """Return what agents (rows) see over time; all but the last act at some steps, and roles change."""
    rng = np.random.default_rng(0)
    acting = rng.random((AGENTS, TIME)) < 0.6
    acting[0], acting[-1] = True, False
    return {
        "features": rng.normal(size=(AGENTS, TIME, FEATURES)).astype(np.float32),
        "role": rng.integers(0, ROLES, (AGENTS, TIME)).astype(np.int32),
        "acting": acting,
    }


@functools.cache
def unrolling(network: Any):
    return jax.jit(network.unroll)


def looked_back(network: Any, params: Any, steps: dict[str, np.ndarray]) -> np.ndarray:
    return np.asarray(unrolling(network)(params, steps["features"], steps["role"], steps["acting"]))


def observation(features: Any, role: Any, acting: Any, legal: Any) -> Observation:
    return Observation(
        jnp.asarray(features), jnp.asarray(role), jnp.zeros(AGENTS, jnp.int32), jnp.asarray(legal), jnp.asarray(acting)
    )


@functools.cache
def playing(network: Any):
    """Return the compiled step of play: the next carry and the chances of all actions."""

    @jax.jit
    def step(params, carry, seen):
        carry, distribution = network.apply(params, carry, seen, seen.acting, jax.random.key(0))
        return carry, distribution.probs

    return step


def played(network: Any, params: Any, steps: dict[str, np.ndarray], legal: Any) -> np.ndarray:
    """Return the chances ``[agents, time, actions]`` of a play, one step after another."""
    carry, chances = network.init(AGENTS), []
    for time in range(TIME):
        features, role, acting = (steps[name][:, time] for name in ("features", "role", "acting"))
        now = observation(features, role, acting, legal)
        carry, probs = playing(network)(params, carry, now)
        chances.append(np.asarray(probs))
    return np.stack(chances, axis=1)


@every
def test_a_fresh_network_takes_every_legal_action_alike(name: str) -> None:
    chances = played(NETWORKS[name], fresh(name), sequence(), LEGAL)
    alike = LEGAL / LEGAL.sum(axis=1, keepdims=True)
    assert np.allclose(chances, alike[:, None], atol=1e-6)


@every
def test_illegal_actions_have_no_probability(name: str) -> None:
    chances = played(NETWORKS[name], stirred(fresh(name)), sequence(), LEGAL)
    assert (chances.transpose(0, 2, 1)[~LEGAL] == 0).all()
    assert np.allclose(chances.sum(axis=-1), 1, atol=1e-5)
    assert chances.std(axis=1).max() > 0.05  # not flat: it looks at what it is shown


@every
def test_looking_back_gives_what_was_played(name: str) -> None:
    """The learner scores what the network did: any difference would pass for a change of the policy."""
    network, params, steps = NETWORKS[name], stirred(fresh(name)), sequence()
    chances = played(network, params, steps, np.ones_like(LEGAL))
    outputs = looked_back(network, params, steps)
    assert outputs.shape == (AGENTS, TIME, network.outputs)
    assert np.allclose(jax.nn.softmax(outputs), chances, atol=1e-5)


@pytest.mark.parametrize("name", ["gru", "gru-per-role"])
def test_only_what_was_seen_while_acting_is_remembered(name: str) -> None:
    network, params, steps = NETWORKS[name], stirred(fresh(name)), sequence()
    before, acting = looked_back(network, params, steps), steps["acting"]
    assert acting.any(axis=0).all() and not acting.all(axis=0).any()
    elsewhere = steps | {"features": steps["features"] + 3 * ~acting[..., None]}
    assert np.array_equal(looked_back(network, params, elsewhere)[acting], before[acting])
    first = steps["features"].copy()
    first[:, 0] += 3 * acting[:, :1]
    after = looked_back(network, params, steps | {"features": first})
    moved = np.abs(after - before).max(axis=-1) > 1e-4
    assert (moved[:, 1:] == acting[:, :1]).all()  # who acted first remembers it ever after, no one else does


@pytest.mark.parametrize("name", ["mlp", "mlp-per-role"])
def test_a_feed_forward_network_remembers_nothing(name: str) -> None:
    network, params, steps = NETWORKS[name], stirred(fresh(name)), sequence()
    assert network.init(AGENTS) == () and not network.recurrent
    first = steps["features"].copy()
    first[:, 0] += 3
    before, after = (looked_back(network, params, dict(steps, features=seen)) for seen in (steps["features"], first))
    assert np.array_equal(after[:, 1:], before[:, 1:]) and not np.allclose(after[:, 0], before[:, 0])


@pytest.mark.parametrize("base", ["mlp", "gru"])
def test_each_role_has_its_own_network_and_its_own_memory(base: str) -> None:
    """An agent that changes its role goes on with what the new role's network made of all its steps."""
    network, params, steps = NETWORKS[f"{base}-per-role"], stirred(fresh(f"{base}-per-role")), sequence()
    one = NETWORKS[base]
    by_role = [
        looked_back(one, jax.tree.map(lambda leaf, role=role: leaf[role], params), steps) for role in range(ROLES)
    ]
    expected = np.choose(steps["role"][..., None], by_role)
    assert np.allclose(looked_back(network, params, steps), expected, atol=1e-6)
    assert not np.allclose(by_role[0], by_role[1], atol=0.1)
    assert len(np.unique(steps["role"][0])) > 1


def test_the_networks_of_roles_start_apart() -> None:
    params = fresh("mlp-per-role")["params"]
    kernel = params["Dense_0"]["kernel"]
    assert not any(np.allclose(kernel[0], kernel[role]) for role in range(1, ROLES))


def test_shapes_of_parameters() -> None:
    def shapes(name):
        tree = jax.tree.leaves_with_path(fresh(name)["params"])
        return {"/".join(str(key.key) for key in path): leaf.shape for path, leaf in tree}

    layers = {"Dense_0": (FEATURES, 8), "Dense_1": (8, 8), "Dense_2": (8, ACTIONS)}
    whole = {f"{layer}/kernel": shape for layer, shape in layers.items()}
    whole |= {f"{layer}/bias": shape[1:] for layer, shape in layers.items()}
    assert shapes("mlp") == whole
    assert shapes("mlp-per-role") == {layer: (ROLES, *shape) for layer, shape in whole.items()}
    recurrent = shapes("gru")
    assert recurrent["Dense_0/kernel"] == (FEATURES, 8) and recurrent["Dense_1/kernel"] == (8, ACTIONS)
    assert shapes("gru-per-role") == {layer: (ROLES, *shape) for layer, shape in recurrent.items()}
    assert GRU.init(AGENTS).shape == (AGENTS, 8)
    assert NETWORKS["gru-per-role"].init(AGENTS).shape == (ROLES, AGENTS, 8)


def test_build() -> None:
    assert build(4, width=8) == MLP
    assert build(4, network="mlp", width=16, layers=3) == MLPExecutor(4, (16, 16, 16))
    assert build(4, network="gru", width=8, layers=5) == GRU
    assert build(4, width=8, roles=3) == PerRole(MLP, 3)
    assert build(1, network="gru", width=8, roles=2) == PerRole(GRUExecutor(1, 8), 2)
    assert build(4, network="gru").recurrent and PerRole(GRU, 3).recurrent and PerRole(GRU, 3).outputs == ACTIONS


def test_features_are_those_of_the_environment() -> None:
    for name, size in (("signal-cue-v0", 4 + 2 + 1), ("signal-memory-v0", 2 + 2 + 1)):
        assert feature_size(*jaxmas.make(name)) == size


# --- what training begins with


def begun(network: Any, start: Any, params: Any) -> Any:
    return starting_params(network, start, params, jax.random.key(0), FEATURES)


@every
def test_a_like_network_goes_on_with_its_parameters(name: str) -> None:
    assert begun(NETWORKS[name], NETWORKS[name], fresh(name)) is fresh(name)


@pytest.mark.parametrize("base", ["mlp", "gru"])
def test_networks_of_roles_begin_as_copies_of_a_shared_one(base: str) -> None:
    params = begun(NETWORKS[f"{base}-per-role"], NETWORKS[base], stirred(fresh(base)))
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(stirred(fresh(base))), strict=True)
    assert all(np.array_equal(leaf, np.stack([one] * ROLES)) for leaf, one in pairs)


@pytest.mark.parametrize("name", ["mlp", "gru-per-role"])
def test_who_was_untrained_begins_fresh(name: str) -> None:
    params = begun(NETWORKS[name], UntrainedExecutor(), None)
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(fresh(name)), strict=True)
    assert all(np.allclose(leaf, other, atol=1e-6) for leaf, other in pairs)


@pytest.mark.parametrize(
    ("network", "start"),
    [(MLP, GRU), (MLP, MLPExecutor(ACTIONS, (8,))), (MLP, PerRole(MLP, ROLES)), (PerRole(MLP, 2), PerRole(MLP, ROLES))],
)
def test_another_network_is_refused(network: Any, start: Any) -> None:
    with pytest.raises(JaxmasError, match=r"cannot go on from.*--executor untrained") as caught:
        begun(network, start, None)
    message = str(caught.value)
    assert "\n" not in message and str(start) in message and str(network) in message
