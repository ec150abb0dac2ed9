"""Real pools: the tiers are language models, with their prices and their accuracy per skill.

A pool is a CSV file: comment lines that start with ``#``, a header ``model,price_in,price_out`` and four skills, then
one line per model with its prices in US$ per million tokens and its accuracies in percent. Calibration matches what a
single attempt gets right; how mistakes coincide (ρ, distractor) stays a matter of the scenario.
"""

import dataclasses
import io
import os
import reprlib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxmas.environments.workflow import scenarios
from jaxmas.environments.workflow.params import WorkflowParams
from jaxmas.environments.workflow.query import QueryMix
from jaxmas.environments.workflow.workflow import Workflow
from jaxmas.errors import JaxmasError, refuse
from jaxmas.registry import SCENARIOS, Scenario

INPUT_SHARE = 0.75
"""Share of input tokens in the blended price: three read for each one written, as price comparisons commonly take."""
PRICE_FLOOR = 1e-4
"""A model costs at least this share of the dearest: a free one must not make all others infinitely dear."""
MAX_NOISE = 0.95
"""The scenario's ε_max: hard benchmarks lie below what gentler limits can reach."""
QUADRATURE = 128
"""Points for each of the two draws behind a difficulty."""
FIXED_COLUMNS = ("model", "price_in", "price_out")
FORMAT = "model,price_in,price_out and four skills"


@dataclasses.dataclass(frozen=True, eq=False)
class Pool:
    """Models, the cheapest first: the tiers of a world in the order of their numbers."""

    models: tuple[str, ...]
    price_in: Float[np.ndarray, "models"]
    """US$ per million tokens."""
    price_out: Float[np.ndarray, "models"]
    skills: tuple[str, ...]
    accuracy: Float[np.ndarray, "models skills"]
    """In [0, 1]."""

    @property
    def blended_price(self) -> Float[np.ndarray, "models"]:
        """Return US$ per million tokens of the usual blend of input and output."""
        return INPUT_SHARE * self.price_in + (1 - INPUT_SHARE) * self.price_out


def make_pool(
    num_agents: int = 16, coordination_interval: int = 12, pool: str | os.PathLike[str] | None = None
) -> tuple[Workflow, WorkflowParams]:
    """Return ``workflow-pool-v0``: the mixed world, with real models as its tiers.

    The reference and the price of planning grow with the mean cost of an attempt, so that they weigh as they do there.
    """
    models = read_pool(pool)
    env, params = scenarios.make_mixed(num_agents, coordination_interval=coordination_interval)
    cost = tier_costs(models)
    scale = jnp.float32(np.mean(cost)) / jnp.mean(params.tier_cost)
    params = dataclasses.replace(
        params,
        reward=dataclasses.replace(params.reward, cost_reference=params.reward.cost_reference * scale),
        tier_noise=jnp.asarray(calibrate(models, params.mix, MAX_NOISE), jnp.float32),
        tier_cost=jnp.asarray(cost, jnp.float32),
        max_noise=jnp.float32(MAX_NOISE),
        plan_cost=params.plan_cost * scale,
        change_cost=params.change_cost * scale,
    )
    return dataclasses.replace(env, num_tiers=len(models.models)), params


def tier_costs(pool: Pool) -> Float[np.ndarray, "models"]:
    """Return the cost of one attempt by each model; the cheapest costs 1."""
    price = pool.blended_price
    price = np.maximum(price, PRICE_FLOOR * np.max(price))
    return price / np.min(price) if np.min(price) > 0 else np.ones_like(price)


def calibrate(pool: Pool, mix: QueryMix, max_noise: float) -> Float[np.ndarray, "models skills"]:
    """Solve  accuracy = 1 − E_δ[clip(δ · tier_noise, 0, ε_max)]  for the tier noise by bisection.

    This is the chance that a matched specialist's first attempt is right: a wrong operand is always a wrong answer.
    """
    difficulty = _difficulties(mix)
    easiest = np.min(difficulty, where=difficulty > 0, initial=np.inf)
    _check_reach(pool, max_noise * float(np.mean(difficulty > 0)), max_noise)
    low, high = np.zeros_like(pool.accuracy), np.full_like(pool.accuracy, max_noise / easiest)
    for _ in range(60):
        middle = (low + high) / 2
        error = np.mean(np.clip(difficulty * middle[..., None], 0, max_noise), axis=-1)
        too_good = 1 - error > pool.accuracy
        low, high = np.where(too_good, middle, low), np.where(too_good, high, middle)
    return (low + high) / 2


def _difficulties(mix: QueryMix) -> Float[np.ndarray, "points"]:
    """Return equally likely difficulties: the query's mean times the subtask's jitter, on a midpoint grid."""
    grid = (np.arange(QUADRATURE) + 0.5) / QUADRATURE
    least, most = np.asarray(mix.difficulty, np.float64)
    jitter = 1 + float(mix.difficulty_spread) * (2 * grid - 1)
    return np.outer(least + (most - least) * grid, jitter).reshape(-1)


def _check_reach(pool: Pool, reach: float, max_noise: float) -> None:
    """Refuse accuracies that no amount of noise brings about."""
    for model, row in zip(pool.models, pool.accuracy, strict=True):
        for skill, accuracy in zip(pool.skills, row, strict=True):
            refuse(
                not 1 - reach < accuracy < 1,
                f"pool: model {reprlib.repr(model)}, column {skill!r}: {100 * accuracy:g} % cannot be reached; with "
                f"max_noise {max_noise:g} accuracies lie above {100 * (1 - reach):.4g} and below 100 %: "
                "check that the file gives percent, or leave the model out",
            )


def read_pool(path: str | os.PathLike[str] | None = None) -> Pool:
    """Read the models of a CSV file, the cheapest first; without a path, those that ship with the package."""
    rows, end = _read(path)
    header = next(rows, None)
    if header is None:
        raise end.error("model", f"the file has no header; start it with the line {FORMAT}")
    skills = _check_header(header)
    models: dict[str, int] = {}
    numbers = []
    for row in rows:
        numbers.append(_check_model(row, skills, models))
        models[row.fields[0]] = row.line
    if not models:
        raise end.error("model", "the file has no model; add at least one line below the header")
    values = np.array(numbers)
    pool = Pool(tuple(models), values[:, 0], values[:, 1], skills, values[:, 2:] / 100)
    return _reordered(pool, np.argsort(pool.blended_price, kind="stable"))


def _reordered(pool: Pool, order: np.ndarray) -> Pool:
    models = tuple(pool.models[model] for model in order)
    return Pool(models, pool.price_in[order], pool.price_out[order], pool.skills, pool.accuracy[order])


@dataclasses.dataclass(frozen=True)
class _Row:
    """A line of a file, taken apart."""

    file: str
    line: int
    fields: list[str]

    def error(self, column: str, message: str) -> JaxmasError:
        return JaxmasError(f"{self.file}, line {self.line}, column {column!r}: {message}")

    def refuse(self, wrong: bool, column: str, message: str) -> None:
        if wrong:
            raise self.error(column, message)


def _read(path: str | os.PathLike[str] | None) -> tuple[Iterator[_Row], _Row]:
    """Open a file; return its rows and the place where it ends."""
    source = resources.files("jaxmas") / "data" / "llm_pool.csv" if path is None else Path(path)
    try:
        data = source.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise JaxmasError(f"{source}: cannot read the pool ({reason}); give the path of a CSV file") from error
    # Bytes that are no text pass here, and are refused in the field that holds them.
    text = data.decode("utf-8-sig", errors="surrogateescape")
    lines = list(io.StringIO(text, newline=None))
    return _rows(str(source), lines), _Row(str(source), max(len(lines), 1), [])


def _rows(file: str, lines: list[str]) -> Iterator[_Row]:
    """Take the lines apart, but for comments and empty ones."""
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith("#"):
            yield _Row(file, number, [field.strip().strip('"').strip() for field in line.split(",")])


def _check_header(row: _Row) -> tuple[str, ...]:
    """Return the skills that a header names."""
    for place, name in enumerate(FIXED_COLUMNS):
        found = row.fields[place] if place < len(row.fields) else ""
        wanted = f"expected {name!r}: start the file with {FORMAT}, in UTF-8"
        row.refuse(found != name, name, f"the header has {reprlib.repr(found)} here; {wanted}")
    skills, expected = row.fields[len(FIXED_COLUMNS) :], scenarios.NUM_SKILLS
    row.refuse(
        len(skills) != expected,
        row.fields[-1],
        f"the header names {len(skills)} skills; expected {expected}, which is what the frozen executors know: "
        f"name {expected} columns after 'price_out'",
    )
    for place, skill in enumerate(skills, len(FIXED_COLUMNS)):
        legal = skill and skill.isprintable() and skill not in row.fields[:place]
        row.refuse(not legal, skill, f"no name for column {place + 1}; write one in UTF-8 that no other column has")
    return tuple(skills)


def _check_model(row: _Row, skills: tuple[str, ...], known: dict[str, int]) -> list[float]:
    """Return the prices and accuracies of a model; ``known`` holds the lines of those before it."""
    columns, count = (*FIXED_COLUMNS, *skills), len(row.fields)
    row.refuse(
        count != len(columns),
        columns[min(count, len(columns) - 1)],
        f"the line has {count} fields; expected {len(columns)}, separated by commas: {','.join(columns)}",
    )
    name = row.fields[0]
    shown = reprlib.repr(name)
    row.refuse(not name or not name.isprintable(), "model", f"{shown} is no name; write the model's name in UTF-8")
    row.refuse(name in known, "model", f"{shown} stands on line {known.get(name)} already; name every model once")
    return [_number(row, column, field) for column, field in zip(columns[1:], row.fields[1:], strict=True)]


def _number(row: _Row, column: str, field: str) -> float:
    """Return a price or an accuracy."""
    try:
        value = float(field)
    except ValueError:
        value = np.nan
    if column in FIXED_COLUMNS:
        legal, expected = 0 <= value < np.inf, "a price of 0 or more in US$ per million tokens, as 0.15"
    else:
        legal, expected = 0 < value < 100, "an accuracy above 0 and below 100 in percent, as 77.8"
    row.refuse(not legal, column, f"{reprlib.repr(field)} is not a legal number; write {expected}")
    return value


SCENARIOS.add(
    "workflow-pool-v0",
    Scenario("workflow-pool-v0", make_pool, 16, "frozen-90", files=("pool",)),
    "the mixed world with five real language models as its tiers; --pool FILE takes others",
    "workflow",
)
