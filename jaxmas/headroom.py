"""Headroom: does an environment leave anything for a learned designer to find?

Random ≪ single agent at the same budget < best strategy < best rule on a few visible numbers < best plan per query;
and every field of the plan matters. Everything is chosen on validation queries and scored on test queries.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Key, PRNGKeyArray

from jaxmas import evaluation, references
from jaxmas.plans import PLAN_FIELDS, Plan
from jaxmas.policies import RandomPolicy, TemplatePolicy
from jaxmas.registry import TEMPLATES
from jaxmas.statistics import Estimate, hierarchical_bootstrap
from jaxmas.types import Environment, Executor, TeamObservation


@dataclasses.dataclass(frozen=True)
class HeadroomSettings:
    """How many queries and replicates go into the measurement."""

    validation: int = 1024
    """Queries on which plans and rules are chosen."""
    test: int = 2048
    """Queries on which they are scored."""
    replicates: int = 2
    """Times each is met."""
    oracle_queries: int = 1024
    """Test queries for the best plan per query, which takes hundreds of replicates each."""
    oracle_plans: int = 96
    """Plans that race on each of them: the more, the closer the lower bound."""
    clamp_queries: int = 384
    clamp_plans: int = 24
    clamp_rounds: tuple[int, ...] = (8, 16, 32)
    clamp_final: int = 64
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class World:
    """What is measured: an environment, its numbers, its executor."""

    env: Environment
    params: Any
    executor: Executor
    executor_params: Any


@dataclasses.dataclass(frozen=True)
class Chosen:
    """What was chosen on validation queries."""

    single: int
    fixed: int
    strategy: int
    rule: references.FittedRule
    features: np.ndarray
    rewards: np.ndarray
    """Validation rewards ``[rows, queries]``."""


def choose(
    world: World,
    settings: HeadroomSettings = HeadroomSettings(),
    advance: Callable[[int], None] = lambda episodes: None,
) -> Chosen:
    """Play every template on validation queries; choose the best of each kind and fit the rule."""
    templates = TEMPLATES[world.env.family]
    keys = evaluation.query_keys("validation", settings.validation, settings.seed)
    rewards, costs = play_table(world, templates.table(), keys, settings.replicates, advance)
    mean = rewards.mean(axis=1)
    features = references.global_features(world.env, world.params, keys)
    strategy = int(mean.argmax())
    return Chosen(
        single=cheap_single(which_rows(templates, "single"), mean, costs.mean(axis=1), strategy),
        fixed=int(np.where(which_rows(templates, "constant"), mean, -np.inf).argmax()),
        strategy=strategy,
        rule=references.best_rule(features, rewards),
        features=features,
        rewards=rewards,
    )


def play_rows(
    world: World, index: np.ndarray, keys: Key[Array, "queries"], replicates: int, advance=lambda episodes: None
) -> np.ndarray:
    """Return the mean reward of template row ``index[i, q]`` on query q, ``[i, queries]``."""
    table = TEMPLATES[world.env.family].table()
    arguments = (world.env, world.params, TemplatePolicy(world.env), table, world.executor, world.executor_params)
    played = evaluation.reward_of_rows(*arguments, keys, index, replicates=range(replicates), advance=advance)
    return played.mean(axis=0)


def measure(
    world: World,
    settings: HeadroomSettings = HeadroomSettings(),
    advance: Callable[[int], None] = lambda episodes: None,
) -> dict[str, Any]:
    """Return random, single, fixed, strategy, rule and per query, with intervals, and the loss per clamped field."""
    templates = TEMPLATES[world.env.family]
    chosen = choose(world, settings, advance)
    test = evaluation.query_keys("test", settings.test, settings.seed)
    by_rule = chosen.rule.taken(references.global_features(world.env, world.params, test))
    same = {name: getattr(chosen, name) for name in ("single", "fixed", "strategy")}
    index = np.stack([*(np.full(settings.test, row) for row in same.values()), by_rule])
    scored = play_rows(world, index, test, settings.replicates, advance)
    values = dict(zip((*same, "rule"), scored, strict=True)) | {"random": random_rewards(world, test, settings)}
    result: dict[str, Any] = {name: _named(values[name]) for name in ("random", "single", "fixed", "strategy", "rule")}
    for name, row in same.items():
        result[name]["plan"] = templates.describe(templates.rows[row])
    result["rule"]["plan"] = chosen.rule.lines(world.env)
    bracket = best_per_query(world, chosen, test[: settings.oracle_queries], settings, advance)
    result["per_query"] = shifted(bracket, values["strategy"], settings.oracle_queries)
    gap = result["strategy"]["mean"] - result["random"]["mean"]
    clamps = clamp_losses(world, chosen, test[: settings.clamp_queries], settings, advance)
    result["clamp"] = {field: loss / gap for field, loss in clamps.items()}
    result["gap"] = gap
    result["in_gaps"] = margins(result)
    return result


def play_table(
    world: World, table: Any, keys: Key[Array, "queries"], replicates: int, advance: Callable[[int], None]
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean rewards and costs ``[rows, queries]`` of every template row."""
    meta = TemplatePolicy(world.env)
    rewards, costs = evaluation.reward_matrix(
        world.env,
        world.params,
        meta,
        table,
        world.executor,
        world.executor_params,
        keys,
        replicates=range(replicates),
        advance=advance,
    )
    return rewards.mean(axis=0), costs


def random_rewards(world: World, keys: Key[Array, "queries"], settings: HeadroomSettings) -> np.ndarray:
    """Return the rewards of random plans, one per query."""
    meta = RandomPolicy(world.env)
    arguments = (world.env, world.params, meta, None, world.executor, world.executor_params, keys)
    return evaluation.evaluate(*arguments, replicates=settings.replicates)["reward"]


def which_rows(templates: Any, kind: str) -> np.ndarray:
    """Return which rows are ``single`` agents, or ``constant``: the same plan whatever the query.

    Where a family of templates does not tell, every row may be.
    """
    tells = getattr(templates, kind, lambda row: True)
    return np.array([tells(row) for row in templates.rows])


def cheap_single(singles: np.ndarray, mean: np.ndarray, cost: np.ndarray, strategy: int) -> int:
    """Return the best single agent that costs no more than the best strategy does."""
    affordable = singles & (cost <= cost[strategy] * 1.0001)
    return int(np.where(affordable if affordable.any() else singles, mean, -np.inf).argmax())


def best_per_query(world: World, chosen: Chosen, keys: Key[Array, "queries"], settings, advance) -> references.Bracket:
    """Race the plans that can matter on each query."""
    rows = references.portfolio(chosen.features, chosen.rewards, settings.oracle_plans)
    table, meta = TEMPLATES[world.env.family].table(), TemplatePolicy(world.env)

    def play(index: np.ndarray, replicates: range) -> np.ndarray:
        arguments = (world.env, world.params, meta, table, world.executor, world.executor_params, keys, index)
        return evaluation.reward_of_rows(*arguments, replicates=replicates, advance=advance)

    return references.oracle(play, rows, len(keys))


def shifted(bracket: references.Bracket, strategy: np.ndarray, queries: int) -> dict[str, Any]:
    """Return the bounds on the scale of all test queries.

    The oracle sees a part of them only, so its gain over the best strategy on that part is added to the strategy's
    mean over all: a control variate that removes how hard the part happened to be.
    """
    offset = float(strategy.mean() - strategy[:queries].mean())

    def moved(estimate: Estimate) -> dict[str, Any]:
        low, high = estimate.ci95
        return Estimate(estimate.mean + offset, (low + offset, high + offset)).to_json()

    return {"low": moved(bracket.low), "high": moved(bracket.high), "queries": queries}


@dataclasses.dataclass(frozen=True)
class ClampedPolicy:
    """A template with some plan fields overwritten by the same constants for every query."""

    env: Environment

    def init(self) -> tuple:
        """Return the empty carry."""
        return ()

    def apply(self, params: tuple[Any, Array, Plan], carry: tuple, team: TeamObservation, key: PRNGKeyArray):
        """Build the row, overwrite the fields, project."""
        row, held, constants = params
        plan = TEMPLATES[self.env.family].build(self.env, row, team)
        fields = {
            name: jnp.where(flag, getattr(constants, name), getattr(plan, name))
            for name, flag in zip(PLAN_FIELDS, held, strict=True)
        }
        return self.env.plan_space.project(dataclasses.replace(plan, **fields))[0], carry, {}


def clamp_losses(world: World, chosen: Chosen, keys: Key[Array, "queries"], settings, advance) -> dict[str, float]:
    """Return what the best plan per query loses when a field is held at its best constant.

    The same plans race with and without the constant, on the same queries and noise; both ends are lower bounds.
    """
    kept = references.portfolio(chosen.features, chosen.rewards, settings.clamp_plans)
    table, meta = TEMPLATES[world.env.family].table(), ClampedPolicy(world.env)
    size = len(jax.tree.leaves(table)[0])

    def best(field: str, constant: Plan) -> float:
        held = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (size, *leaf.shape)), (field_flags(field), constant))

        def play(index: np.ndarray, replicates: range) -> np.ndarray:
            arguments = (world.env, world.params, meta, (table, *held), world.executor, world.executor_params)
            return evaluation.reward_of_rows(*arguments, keys, index, replicates=replicates, advance=advance)

        return references.oracle(
            play, kept, len(keys), rounds=settings.clamp_rounds, final=settings.clamp_final
        ).low.mean

    free = best("", world.env.plan_space.empty())
    constants = field_constants(world.env)
    return {
        field: free - max(best(field, constant) for constant in constants[field])
        for field in world.env.plan_space.fields
    }


def field_flags(field: str) -> Bool[Array, "6"]:
    """Return which of the plan's fields is held; none for an empty name."""
    return jnp.array([name == field for name in PLAN_FIELDS])


def field_constants(env: Environment) -> dict[str, list[Plan]]:
    """Return, for each field, the constants that a sensible person would try."""
    space = env.plan_space
    slot = np.arange(space.num_agents)
    # Beside skills there may be roles of other kinds, the first of which is the usual one.
    skills = min(getattr(env, "num_skills", space.num_roles), space.num_roles)
    usual = min(skills, space.num_roles - 1)
    ring = (slot[:, None] + 1 + np.arange(space.inbox)) % space.num_agents
    hub = np.where(slot[:, None] == 0, 1 + np.arange(space.inbox), -1)
    heap = np.where(np.arange(space.inbox) < 3, 3 * slot[:, None] + 1 + np.arange(space.inbox), -1)
    line = np.where(np.arange(space.inbox) == 0, slot[:, None] + 1, -1)
    choices: dict[str, list[np.ndarray]] = {
        "active": [slot < size for size in (1, 2, 3, 4, 6, 8, 16) if size <= space.num_agents],
        "role": [np.full_like(slot, usual), slot % skills, *(np.full_like(slot, skill) for skill in range(skills))],
        "tier": [*(np.full_like(slot, tier) for tier in range(space.num_tiers)), slot % space.num_tiers],
        "task": [np.full_like(slot, -1), slot % space.num_tasks, slot % max(space.num_tasks // 2, 1)],
        "reads": [np.full_like(ring, -1), ring, hub, heap, line],
        "quorum": [np.full(space.num_tasks, votes) for votes in (1, 2, 3, 5)]
        + [np.where(np.arange(space.num_tasks) == 0, 3, 1)],
    }
    empty = space.empty()
    return {
        field: [
            dataclasses.replace(empty, **{field: jnp.asarray(value, getattr(empty, field).dtype)}) for value in values
        ]
        for field, values in choices.items()
    }


def margins(result: dict[str, Any]) -> dict[str, float]:
    """Return the margins in units of the gap from random to the best strategy."""
    gap, low = result["gap"], result["per_query"]["low"]["mean"]
    return {
        "per_query_low_over_strategy": (low - result["strategy"]["mean"]) / gap,
        "per_query_low_over_rule": (low - result["rule"]["mean"]) / gap,
        "strategy_over_single": (result["strategy"]["mean"] - result["single"]["mean"]) / gap,
        "bracket_width": result["per_query"]["high"]["mean"] - low,
    }


def _named(values: np.ndarray) -> dict[str, Any]:
    return hierarchical_bootstrap(values[None]).to_json()
