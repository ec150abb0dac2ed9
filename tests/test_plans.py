"""Check that any integers become a legal plan, and that legal plans are left alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import make_plan, same
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmas.plans import Plan, PlanSpace

SPACE = PlanSpace(num_agents=6, num_tasks=5, num_roles=7, num_tiers=3, inbox=4, max_quorum=7)
RANGES = {"role": (0, 6), "tier": (0, 2), "task": (-1, 4), "quorum": (1, 7)}
project = jax.jit(SPACE.project)
sample = jax.jit(jax.vmap(SPACE.sample))


def any_plan(seed: int, spread: int) -> Plan:
    """Draw integers from around the legal ranges (small spread) or from all of int32."""
    rng, n = np.random.default_rng(seed), SPACE.num_agents
    low, high = max(-spread - 2, -(2**31)), min(spread + 4, 2**31 - 1)
    draw = functools.partial(rng.integers, low, high, dtype=np.int32)
    return Plan(
        active=jnp.asarray(rng.random(n) < rng.choice([0.0, 0.3, 0.8])),
        role=jnp.asarray(draw(n)),
        tier=jnp.asarray(draw(n)),
        task=jnp.asarray(draw(n)),
        reads=jnp.asarray(draw((n, SPACE.inbox))),
        quorum=jnp.asarray(draw(SPACE.num_tasks)),
    )


def assert_legal(plan: Plan) -> None:
    """Check every rule of a legal plan in plain Python."""
    active = np.asarray(plan.active)
    assert active.any()
    for field, (low, high) in RANGES.items():
        values = np.asarray(getattr(plan, field))
        assert values.dtype == np.int32
        assert ((values >= low) & (values <= high)).all(), field
    for reader, inbox in enumerate(np.asarray(plan.reads).tolist()):
        senders = [sender for sender in inbox if sender != -1]
        assert len(set(senders)) == len(senders)
        assert all(0 <= sender < SPACE.num_agents and active[sender] and sender != reader for sender in senders)
        assert active[reader] or not senders


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), spread=st.sampled_from([0, 1, 3, 100, 2**31 - 1]))
def test_projection_is_total_and_idempotent(seed: int, spread: int) -> None:
    plan, _ = project(any_plan(seed, spread))
    assert_legal(plan)
    again, violations = project(plan)
    assert violations == 0
    assert same(plan, again)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), spread=st.sampled_from([0, 1, 100]))
def test_projection_keeps_what_is_legal(seed: int, spread: int) -> None:
    """A repair touches only values that are illegal by themselves or by who is active."""
    before = any_plan(seed, spread)
    after, violations = project(before)
    repairs = 0
    for field, (low, high) in RANGES.items():
        old, new = np.asarray(getattr(before, field)), np.asarray(getattr(after, field))
        legal = (old >= low) & (old <= high)
        assert (old == new)[legal].all(), field
        repairs += (~legal).sum()
    # A slot that the empty team gains has its reads counted like any other inactive slot's: not at all, or once each.
    old, new = np.asarray(before.reads), np.asarray(after.reads)
    assert ((new == old) | (new == -1)).all()
    member = np.asarray(before.active)
    repairs += (old != new)[member].sum() + (not member.any())
    assert violations >= repairs
    if member.any():
        assert violations == repairs


def test_sampled_plans_are_legal_and_varied() -> None:
    plans = sample(jax.random.split(jax.random.key(0), 2048))
    again, violations = jax.jit(jax.vmap(SPACE.project))(plans)
    assert same(plans, again)
    assert not violations.any()
    for field, (low, high) in RANGES.items():
        values = np.asarray(getattr(plans, field)).ravel()
        counts = np.bincount(values - low, minlength=high - low + 1)
        expected = len(values) / (high - low + 1)
        assert ((counts - expected) ** 2 / expected).sum() < 50, field
    assert abs(np.mean(plans.active) - 0.5) < 4 * 0.5 / np.sqrt(plans.active.size) + 2.0**-6


@pytest.mark.parametrize(
    ("field", "index", "value", "repaired"),
    [
        ("role", 1, 7, 0),
        ("role", 1, -1, 0),
        ("tier", 1, 3, 0),
        ("task", 1, 5, -1),
        ("task", 1, -2, -1),
        ("quorum", 2, 0, 1),
        ("quorum", 2, 99, 7),
        ("reads", (1, 0), 1, -1),  # itself
        ("reads", (1, 0), 5, -1),  # inactive
        ("reads", (1, 0), 6, -1),  # no such slot
        ("reads", (1, 3), 0, -1),  # a second time
        ("reads", (1, 3), -7, -1),
    ],
)
def test_one_violation_is_repaired_and_counted(field: str, index, value: int, repaired: int) -> None:
    good = make_plan(SPACE, (0, 1, 2), role=1, tier=1, task=1, reads={1: [0, 2]}, quorum=2)
    assert project(good)[1] == 0
    bad = {name: getattr(good, name) for name in ("active", "role", "tier", "task", "reads", "quorum")}
    if field == "reads" and index == (1, 3):
        bad["reads"] = bad["reads"].at[1, :2].set(jnp.array([0, 2]))
    bad[field] = bad[field].at[index].set(value)
    plan, violations = project(Plan(**bad))
    assert violations == 1
    assert getattr(plan, field)[index] == repaired


def test_an_empty_team_gets_slot_0() -> None:
    plan, violations = project(SPACE.empty())
    assert np.flatnonzero(plan.active).tolist() == [0]
    assert violations == 1
