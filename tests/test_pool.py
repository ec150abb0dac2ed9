"""Check the real-model pool: the file, the calibration, and the accuracies that the environment then shows."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import make_plan

from jaxmas.environments.workflow.pool import Pool, calibrate, make_pool, read_pool, tier_costs
from jaxmas.environments.workflow.query import sample_query
from jaxmas.environments.workflow.scenarios import make_mixed
from jaxmas.environments.workflow.scripted import ScriptedExecutor
from jaxmas.errors import JaxmasError

HEADER = "model,price_in,price_out,general,reasoning,coding,math"
LISTED = {
    "gpt-4o-mini": (77.8, 40.2, 85.7, 66.09),
    "claude-3-5-haiku": (67.9, 41.6, 86.3, 65.9),
    "gemini-1.5-flash": (80.0, 39.5, 82.6, 74.4),
    "llama-3.1-70b-instruct": (79.1, 46.7, 80.7, 60.3),
    "deepseek-chat": (88.5, 59.1, 88.4, 85.1),
}
QUERIES = 16384
"""Per figure: the standard error is below 0.4 points."""


def written(folder: Path, text: str | bytes) -> Path:
    """Write a pool file."""
    path = folder / "models.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def pool_of(*accuracy: float, price: float = 1.0) -> Pool:
    """Return a pool of one model."""
    skills = tuple(f"skill-{place}" for place in range(len(accuracy)))
    return Pool(("solo",), np.array([price]), np.array([price]), skills, np.array([accuracy]))


def mix_of(difficulty=(0.05, 0.7), spread=0.6):
    """Return a query mix with the given law of difficulty, of single subtasks."""
    mix = make_mixed()[1].mix
    weights = jnp.asarray([1.0, 0.0, 0.0, 0.0, 0.0])
    return dataclasses.replace(
        mix, shape_weights=weights, difficulty=jnp.asarray(difficulty), difficulty_spread=jnp.float32(spread)
    )


# The environment


def measured(num_queries: int, seed: int = 0) -> np.ndarray:
    """Return the success ``[tiers, skills]`` of one specialist's single attempt, played in the environment."""
    env, params = make_pool(num_agents=4)
    tiers, skills = params.tier_noise.shape
    weights = jnp.asarray([1.0, 0.0, 0.0, 0.0, 0.0])
    params = dataclasses.replace(params, mix=dataclasses.replace(params.mix, shape_weights=weights))
    plan, executor = make_plan(env.plan_space), ScriptedExecutor()
    first = jnp.arange(env.num_agents) == 0

    def one(key, tier, skill):
        keys = jax.random.split(key, 3)
        query = sample_query(keys[0], params.mix, params.tables, env.max_subtasks, env.horizon)
        skilled = jnp.full_like(query.skill, skill)
        query = dataclasses.replace(query, skill=skilled, answer=params.tables[skilled, query.operand])
        state, _ = env.start(keys[1], query, params)
        specialist = dataclasses.replace(plan, role=jnp.where(first, skill, 0), tier=jnp.where(first, tier, 0))
        state, seen = env.coordinate(keys[2], state, specialist, params)
        rule = {"tables": params.tables, "error": 0.0}
        _, answers = executor.apply(rule, (), seen, seen.acting, keys[2])
        _, timestep = env.step(keys[2], state, jnp.argmax(answers.logits, axis=-1), params)
        alone = timestep.metrics["attempts"] == 1
        return timestep.terminated & alone, timestep.metrics["success"]

    tier, skill = (grid.reshape(-1) for grid in jnp.meshgrid(jnp.arange(tiers), jnp.arange(skills), indexing="ij"))
    keys = jax.random.split(jax.random.key(seed), (tiers * skills, num_queries))
    play = jax.jit(lambda: jax.lax.map(lambda each: jax.vmap(one, (0, None, None))(*each), (keys, tier, skill)))
    over, success = play()
    assert np.all(over)
    return np.mean(success, axis=1).reshape(tiers, skills)


def test_every_model_reaches_its_listed_accuracy() -> None:
    listed = np.array([LISTED[model] for model in read_pool().models])
    assert np.abs(100 * measured(QUERIES) - listed).max() < 1.5


def test_the_world_is_the_mixed_one_but_for_its_tiers() -> None:
    (env, params), (mixed_env, mixed) = make_pool(num_agents=8), make_mixed(num_agents=8)
    assert dataclasses.replace(env, num_tiers=mixed_env.num_tiers) == mixed_env
    assert env.num_tiers == len(params.tier_cost) == len(params.tier_noise) == 5
    for cost, reference in ((params, params.reward), (mixed, mixed.reward)):
        shares = jnp.array([cost.plan_cost, cost.change_cost, jnp.mean(cost.tier_cost)]) / reference.cost_reference
        expected = jnp.array([mixed.plan_cost, mixed.change_cost, jnp.mean(mixed.tier_cost)])
        np.testing.assert_allclose(shares, expected / mixed.reward.cost_reference, rtol=1e-5)
    changed = {"reward", "tier_noise", "tier_cost", "max_noise", "plan_cost", "change_cost"}
    for field in {field.name for field in dataclasses.fields(params)} - changed:
        for ours, theirs in zip(*(jax.tree.leaves(getattr(p, field)) for p in (params, mixed)), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert make_pool(8, coordination_interval=1)[0].coordination_interval == 1


def test_a_specialist_is_matched() -> None:
    """The calibration counts on it: the noise of a specialist on its skill is the tier's own."""
    params = make_pool()[1]
    np.testing.assert_array_equal(np.diagonal(params.mismatch), np.ones(4))


def test_another_file_gives_another_world(tmp_path: Path) -> None:
    path = written(tmp_path, f"{HEADER}\nsolo,1,2,50,60,70,80\n")
    for given in (path, str(path)):
        env, params = make_pool(num_agents=4, pool=given)
        assert env.num_tiers == 1 and params.tier_cost.tolist() == [1.0]
        assert np.all(np.diff(np.asarray(params.tier_noise)[0]) < 0)


# Calibration


def test_without_spread_the_noise_is_error_over_difficulty() -> None:
    noise = calibrate(pool_of(0.9, 0.5, 0.06), mix_of((0.4, 0.4), 0.0), 0.95)
    np.testing.assert_allclose(noise, [[0.1 / 0.4, 0.5 / 0.4, 0.94 / 0.4]], rtol=1e-6)


def test_below_the_limit_only_the_mean_difficulty_counts() -> None:
    noise = calibrate(pool_of(0.8, 0.9), mix_of((0.2, 0.6), 0.3), 0.95)
    np.testing.assert_allclose(noise, [[0.2 / 0.4, 0.1 / 0.4]], rtol=1e-6)


@pytest.mark.parametrize(("difficulty", "spread"), [((0.05, 0.7), 0.6), ((0.0, 1.0), 1.0), ((0.3, 0.4), 0.0)])
def test_calibration_agrees_with_the_law_of_the_queries(difficulty: tuple[float, float], spread: float) -> None:
    """Drawn difficulties, through the clip, give the listed accuracies within sampling error."""
    mix, accuracy = mix_of(difficulty, spread), np.array([0.97, 0.7, 0.4, 0.15])
    noise = calibrate(pool_of(*accuracy), mix, 0.95)
    tables = make_mixed()[1].tables
    keys = jax.random.split(jax.random.key(3), 50_000)
    drawn = np.asarray(jax.vmap(lambda key: sample_query(key, mix, tables, 2, 4).difficulty[0])(keys))
    reached = 1 - np.clip(drawn[:, None] * noise, 0, 0.95).mean(axis=0)
    np.testing.assert_allclose(reached, accuracy, atol=0.006)


@pytest.mark.parametrize(
    ("accuracy", "difficulty", "parts"),
    [
        (0.04, (0.05, 0.7), ("'solo'", "'skill-1'", "4 %", "above 5 ", "max_noise 0.95")),
        (0.9, (0.0, 0.0), ("'skill-0'", "above 100")),
    ],
)
def test_an_accuracy_out_of_reach_is_named(accuracy: float, difficulty: tuple[float, float], parts: tuple) -> None:
    with pytest.raises(JaxmasError) as refusal:
        calibrate(pool_of(0.9, accuracy), mix_of(difficulty), 0.95)
    assert all(part in str(refusal.value) for part in parts) and "\n" not in str(refusal.value)


# Prices


def test_costs_are_blended_prices_in_units_of_the_cheapest() -> None:
    pool = read_pool()
    assert pool.models[0] == "llama-3.1-70b-instruct" and pool.models[-1] == "claude-3-5-haiku"
    np.testing.assert_allclose(tier_costs(pool), np.array([0.2, 0.2625, 0.2625, 0.4775, 2.0]) / 0.2)


def test_free_models(tmp_path: Path) -> None:
    body = "dear,4,4,50,50,50,50\nfree,0,0,50,50,50,50\nalso-free,0,0,50,50,50,50\n"
    pool = read_pool(written(tmp_path, f"{HEADER}\n{body}"))
    assert pool.models == ("free", "also-free", "dear")
    np.testing.assert_allclose(tier_costs(pool), [1, 1, 1e4])
    np.testing.assert_array_equal(tier_costs(pool_of(0.5, price=0.0)), [1])


# The file


def test_the_shipped_pool() -> None:
    pool = read_pool()
    assert set(pool.models) == set(LISTED) and pool.skills == ("general", "reasoning", "coding", "math")
    for model, accuracy in zip(pool.models, pool.accuracy, strict=True):
        np.testing.assert_allclose(100 * accuracy, LISTED[model])
    assert pool.price_in[pool.models.index("deepseek-chat")] == 0.27
    assert pool.price_out[pool.models.index("deepseek-chat")] == 1.10


def test_spreadsheets_may_have_written_the_file(tmp_path: Path) -> None:
    """A byte-order mark, quotes, spaces, Windows line ends, comments and empty lines all pass."""
    body = '# one\n\n"model", price_in,price_out,a,b,c,"d"\n\n"é 1", 1 ,2,50,60,70,80\n# two\n'
    pool = read_pool(written(tmp_path, b"\xef\xbb\xbf" + body.replace("\n", "\r\n").encode()))
    assert pool.models == ("é 1",) and pool.skills == ("a", "b", "c", "d")
    assert pool.accuracy.tolist() == [[0.5, 0.6, 0.7, 0.8]]


GOOD = "fine,1,2,50,60,70,80"
MALFORMED = {
    "empty": ("", 1, "model", "no header"),
    "only comments": ("# nothing\n# here\n", 2, "model", "no header"),
    "no model": (f"# source\n{HEADER}\n", 2, "model", "no model"),
    "no header": (f"{GOOD}\n", 1, "model", "'fine'"),
    "header in another order": ("model,price_out,price_in,a,b,c,d\n", 1, "price_in", "'price_out'"),
    "header too short": ("model\n", 1, "price_in", "''"),
    "semicolons": (f"{HEADER.replace(',', ';')}\n", 1, "model", "here; expected 'model'"),
    "three skills": ("model,price_in,price_out,a,b,c\n", 1, "c", "frozen executors"),
    "five skills": (f"# source\n{HEADER},law\n", 2, "law", "frozen executors"),
    "no skill": ("model,price_in,price_out\n", 1, "price_out", "frozen executors"),
    "skill twice": ("model,price_in,price_out,a,b,c,a\n", 1, "a", "column 7"),
    "skill without a name": ("model,price_in,price_out,a,b,,d\n", 1, "", "column 6"),
    "field missing": (f"{HEADER}\n{GOOD}\nshort,1,2,50,60,70\n", 3, "math", "6 fields"),
    "field too many": (f"{HEADER}\n{GOOD},9\n", 2, "math", "8 fields"),
    "decimal comma": (f"{HEADER}\nx,0,15,2,50,60,70,80\n", 2, "math", "8 fields"),
    "price is a word": (f"{HEADER}\n{GOOD}\nx,cheap,2,50,60,70,80\n", 3, "price_in", "'cheap'"),
    "price is missing": (f"{HEADER}\nx,1,,50,60,70,80\n", 2, "price_out", "''"),
    "price below zero": (f"{HEADER}\nx,1,-2,50,60,70,80\n", 2, "price_out", "'-2'"),
    "price is NaN": (f"{HEADER}\nx,nan,2,50,60,70,80\n", 2, "price_in", "'nan'"),
    "price is infinite": (f"{HEADER}\nx,1,inf,50,60,70,80\n", 2, "price_out", "'inf'"),
    "accuracy is a word": (f"{HEADER}\nx,1,2,50,n/a,70,80\n", 2, "reasoning", "'n/a'"),
    "accuracy is NaN": (f"{HEADER}\n\n# why\nx,1,2,50,60,NaN,80\n", 4, "coding", "'NaN'"),
    "accuracy with a sign": (f"{HEADER}\nx,1,2,50%,60,70,80\n", 2, "general", "'50%'"),
    "accuracy above 100": (f"{HEADER}\nx,1,2,50,60,70,100.5\n", 2, "math", "'100.5'"),
    "accuracy of 100": (f"{HEADER}\nx,1,2,100,60,70,80\n", 2, "general", "below 100"),
    "accuracy of 0": (f"{HEADER}\nx,1,2,50,60,70,0\n", 2, "math", "above 0"),
    "model without a name": (f"{HEADER}\n,1,2,50,60,70,80\n", 2, "model", "''"),
    "model twice": (f"{HEADER}\n{GOOD}\n# again\n{GOOD}\n", 4, "model", "line 2"),
    "model not in UTF-8": (f"{HEADER}\ncaf\xe9,1,2,50,60,70,80\n".encode("latin-1"), 2, "model", "UTF-8"),
    "skill not in UTF-8": ("model,price_in,price_out,a,b,c,\xe9\n".encode("latin-1"), 1, "\udce9", "UTF-8"),
    "UTF-16": (f"{HEADER}\n{GOOD}\n".encode("utf-16"), 1, "model", "UTF-8"),
    "binary": (bytes(range(256)) * 9, 1, "model", "UTF-8"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_file_names_line_and_column(tmp_path: Path, case: str) -> None:
    text, line, column, part = MALFORMED[case]
    path = written(tmp_path, text)
    with pytest.raises(JaxmasError) as refusal:
        read_pool(path)
    message = str(refusal.value)
    assert message.startswith(f"{path}, line {line}, column {column!r}: ") and part in message
    assert message.isprintable() and len(message) < len(str(path)) + 250


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.csv", tmp_path):
        with pytest.raises(JaxmasError, match="cannot read the pool") as refusal:
            make_pool(pool=str(path))
        assert str(path) in str(refusal.value)
