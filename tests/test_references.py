"""Check the references against planted truths: rules, portfolios, the oracle's bracket, paired evaluation, anchors."""

import dataclasses
import functools
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmas
from jaxmas import anchors, evaluation, headroom
from jaxmas.algorithms.rules import Rule, fit_rule
from jaxmas.catalog import SCENARIOS, TEMPLATES
from jaxmas.environments.probes import ActExecutor, Probe, ProbeParams
from jaxmas.experiments import freeze
from jaxmas.policies import RandomPolicy, TemplatePolicy
from jaxmas.references import best_few, oracle, portfolio

# --- rules


def uniform_features(queries: int = 1000, features: int = 3, seed: int = 0) -> np.ndarray:
    """Return a grid of distinct values per feature, in random order: a threshold between two of them is exact."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(queries) for _ in range(features)], axis=1) / queries


def rewards_for(choice: np.ndarray, plans: int) -> np.ndarray:
    """Return 1 for the right plan of each query, 0 for the others."""
    return np.eye(plans)[choice]


def test_depth_1_is_found_exactly() -> None:
    features = uniform_features()
    place = int(np.linspace(20, 980, 12).astype(int)[6])  # one of the twelve places that are tried
    choice = np.where(features[:, 1] <= (place - 0.5) / 1000, 2, 0)
    rule = fit_rule(features, rewards_for(choice, 3), depth=1)
    assert (rule.feature, rule.threshold) == (1, pytest.approx((place - 0.5) / 1000))
    assert (rule(features) == choice).all()
    assert (fit_rule(features, rewards_for(choice, 3), depth=0)(features) == np.bincount(choice).argmax()).all()


def balanced_features(levels: int = 4, features: int = 5, seed: int = 0) -> np.ndarray:
    """Return a full grid over (0, 1), jittered to distinct values: a half of it by one feature halves all others."""
    grid = np.stack(np.meshgrid(*[np.arange(levels)] * features), axis=-1).reshape(-1, features)
    return (grid + np.random.default_rng(seed).uniform(0.01, 0.99, grid.shape)) / levels


def planted(depth: int, values: np.ndarray) -> np.ndarray:
    """Return a full tree's choice: the plan is a binary number, one feature per digit, the first one weighs most."""
    digits = [(values[:, digit] > 0.5).astype(int) << (depth - 1 - digit) for digit in range(depth)]
    return np.sum(digits, axis=0)


@pytest.mark.parametrize("depth", [2, 3])
def test_a_planted_tree_is_found(depth: int) -> None:
    """Every leaf has a plan of its own, so that each split pays by itself and the greedy order suffices."""
    features = balanced_features(seed=depth)
    choice = planted(depth, features)
    noise = np.random.default_rng(9).normal(0, 0.05, (len(features), 2**depth))
    rule = fit_rule(features, rewards_for(choice, 2**depth) + noise, depth=depth, cuts=13)
    assert (rule(features) == choice).all()
    shallow = fit_rule(features, rewards_for(choice, 2**depth) + noise, depth=depth - 1, cuts=13)
    assert (shallow(features) == choice).mean() < 0.6


@pytest.mark.parametrize("values", [2, 3, 8])
def test_a_discrete_feature_is_split(values: int) -> None:
    """The deadline, the size, the depth and the number of skills of a query are discrete."""
    feature = np.repeat(np.arange(values), 1024 // values)[:, None] / values
    choice = (feature[:, 0] >= 0.5).astype(int)
    rule = fit_rule(feature, rewards_for(choice, 2), depth=1)
    assert (rule(feature) == choice).all()


def test_two_levels_are_exact() -> None:
    """Exclusive or: no first split pays by itself, so it is found only where every one is tried."""
    features = balanced_features(seed=3)
    choice = (features[:, 0] > 0.5).astype(int) ^ (features[:, 1] > 0.5).astype(int)
    best = fit_rule(features, rewards_for(choice, 2), depth=2, cuts=13, tries=10**6)
    assert (best(features) == choice).all()  # it is there to be found
    rule = fit_rule(features, rewards_for(choice, 2), depth=2, cuts=13)
    assert (rule(features) == choice).all()


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_rule_never_earns_less_than_the_best_constant(depth: int) -> None:
    """In its own sample, by construction; on pure noise a deeper rule earns no less than a shallower one."""
    rng = np.random.default_rng(depth)
    earned = []
    features, rewards = rng.random((300, 4)), rng.normal(size=(300, 6))
    for levels in range(depth + 1):
        rule = fit_rule(features, rewards, depth=levels)
        earned.append(rewards[np.arange(300), rule(features)].mean())
    assert earned[0] == pytest.approx(rewards.mean(0).max())
    assert earned == sorted(earned)
    assert earned[-1] > earned[0]


def depth_of(rule: Rule) -> int:
    return 0 if rule.low is None or rule.high is None else 1 + max(depth_of(rule.low), depth_of(rule.high))


def leaf_sizes(rule: Rule, features: np.ndarray) -> list[int]:
    if rule.low is None or rule.high is None:
        return [len(features)]
    below = features[:, rule.feature] <= rule.threshold
    return leaf_sizes(rule.low, features[below]) + leaf_sizes(rule.high, features[~below])


def test_depth_and_leaves_are_bounded() -> None:
    rng = np.random.default_rng(0)
    features, rewards = rng.random((500, 3)), rng.normal(size=(500, 9))
    rule = fit_rule(features, rewards, depth=3, min_leaf=40)
    assert depth_of(rule) <= 3
    assert min(leaf_sizes(rule, features)) >= 40
    assert depth_of(fit_rule(features[:70], rewards[:70], depth=3, min_leaf=40)) == 0


def test_lines_are_readable() -> None:
    low = Rule(feature=0, threshold=0.25, low=Rule(choice=1), high=Rule(choice=0))
    rule = Rule(feature=1, threshold=0.5, low=low, high=Rule(choice=2))
    assert rule.lines(("rho", "deadline"), ["alone", "pair", "crowd"]) == [
        "if deadline <= 0.500:",
        "    if rho <= 0.250:",
        "        pair",
        "    else:",
        "        alone",
        "else:",
        "    crowd",
    ]
    assert rule(np.array([[0.25, 0.5], [0.3, 0.5], [0.0, 0.6]])).tolist() == [1, 0, 2]


# --- portfolios


def test_portfolio_keeps_the_best_overall_first_and_the_best_of_every_group() -> None:
    rng = np.random.default_rng(0)
    features = rng.random((900, 2))
    third = np.searchsorted(np.quantile(features[:, 0], [1 / 3, 2 / 3]), features[:, 0])
    rewards = np.stack([third == 0, third == 1, third == 2, np.full(900, 0.5), np.full(900, 0.1)]).astype(float)
    chosen = portfolio(features, rewards, 8)
    assert chosen[0] == 3  # 0.5 on average, against a third
    assert sorted(chosen) == [0, 1, 2, 3]
    assert len(portfolio(features, rewards, 2)) == 2
    assert portfolio(features, rewards, 1).tolist() == [3]


def test_best_few_covers_greedily() -> None:
    rewards = np.array([[1.0, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0.7, 0.7, 0.7, 0, 0.7], [0, 0, 0, 0, 1]])
    assert best_few(rewards, 1) == [2]
    assert best_few(rewards, 2) == [2, 1]
    assert sorted(best_few(rewards, 4)) == [0, 1, 2, 3]


# --- the oracle


QUERIES, PLANS = 96, 12


def arena(seed: int, spread: float = 1.0):
    """Return known mean rewards ``[plans, queries]`` and a play function with unit noise of its own per replicate."""
    means = np.random.default_rng(seed).normal(0, spread, (PLANS, QUERIES))
    columns = np.arange(QUERIES)

    def play(index: np.ndarray, replicates: range) -> np.ndarray:
        # Noise belongs to (replicate, plan, query), whatever else is played.
        drawn = [np.random.default_rng((seed, 7, r)).normal(size=(PLANS, QUERIES)) for r in replicates]
        return np.stack([(means + noise)[index, columns] for noise in drawn])

    return means, play


RACE = {"rounds": (8, 16), "final": 64}


@pytest.mark.parametrize("spread", [1.0, 0.2])
def test_the_truth_lies_within_the_bracket(spread: float) -> None:
    means, play = arena(1, spread)
    truth = means.max(axis=0).mean()
    bracket = oracle(play, np.arange(PLANS), QUERIES, **RACE)
    error = 4 / np.sqrt(64 * QUERIES)
    assert bracket.low.mean <= truth + error
    assert bracket.high.mean >= truth - error
    assert bracket.low.mean <= bracket.high.mean
    assert bracket.high.mean - bracket.low.mean < 0.15
    # The plan that it names is nearly as good as the best one.
    chosen = means[bracket.best, np.arange(QUERIES)].mean()
    assert truth - chosen < 0.1
    assert bracket.low.mean == pytest.approx(bracket.low_values.mean())


def test_the_low_end_is_the_true_worth_of_its_choice() -> None:
    """Where all plans are equal, choosing is worth nothing: low says so, high is taken in by luck."""
    worlds = [oracle(arena(seed, 0.0)[1], np.arange(PLANS), QUERIES, **RACE) for seed in range(8)]
    low = np.array([world.low.mean for world in worlds])
    high = np.array([world.high.mean for world in worlds])
    assert abs(low.mean()) < 4 / np.sqrt(64 * QUERIES * 8)
    assert high.mean() > 0.05


def test_the_low_end_against_brute_force() -> None:
    """Play the chosen plan again on fresh noise: low is what it earns, over many worlds."""
    gaps = []
    for seed in range(8):
        means, play = arena(100 + seed, 0.3)
        bracket = oracle(play, np.arange(PLANS), QUERIES, **RACE)
        gaps.append(bracket.low.mean - means[bracket.best, np.arange(QUERIES)].mean())
    # The whole sample chooses a little better than the half that low is scored with, never worse.
    assert -0.05 < np.mean(gaps) < 4 * np.std(gaps) / np.sqrt(8) + 1e-3


def test_every_replicate_is_fresh_and_rows_keep_their_names() -> None:
    played: list[range] = []
    means, play = arena(3)

    def spy(index: np.ndarray, replicates: range) -> np.ndarray:
        assert set(np.unique(index)) <= {2, 5, 11, 7}
        played.append(replicates)
        return play(index, replicates)

    bracket = oracle(spy, np.array([2, 5, 11, 7]), QUERIES, **RACE)
    covered = [replicate for replicates in played for replicate in replicates]
    assert covered == list(range(8 + 16 + 64))
    assert (bracket.best == np.array([2, 5, 11, 7])[means[[2, 5, 11, 7]].argmax(0)]).mean() > 0.8


# --- evaluation, on a probe: choice of tier in a context


@pytest.fixture(scope="module")
def world():
    env, params = jaxmas.make("probe-context-v0")
    params = dataclasses.replace(params, payoff=jnp.array([[1.0, 0.25], [0.5, 2.0]]))
    executor, executor_params = jaxmas.load_executor("act", env, params)
    return env, params, TemplatePolicy(env), executor, executor_params


@functools.cache
def data_of(stream: str, seed: int) -> set[tuple[int, ...]]:
    keys = evaluation.query_keys(stream, 500, seed)
    return set(map(tuple, np.asarray(jax.random.key_data(keys)).tolist()))


def test_streams_are_disjoint() -> None:
    sets = [data_of(stream, seed) for stream in ("train", "validation", "test") for seed in (0, 1)]
    assert all(len(one) == 500 for one in sets)
    assert len(set.union(*sets)) == 6 * 500


def test_a_stream_goes_on_where_it_stopped() -> None:
    whole = jax.random.key_data(evaluation.query_keys("test", 10))
    parts = [jax.random.key_data(evaluation.query_keys("test", 5, start=start)) for start in (0, 5)]
    assert (whole == jnp.concatenate(parts)).all()


def test_noise_of_replicates_is_fresh() -> None:
    keys = evaluation.query_keys("test", 50)
    noise = [evaluation.noise_keys(keys, replicate) for replicate in range(3)]
    data = np.concatenate([np.asarray(jax.random.key_data(one)) for one in (keys, *noise)])
    assert len(np.unique(data, axis=0)) == 4 * 50


def contexts_of(world, keys) -> np.ndarray:
    """Return each query's context, told apart by what tier 0 earns there."""
    env, params, *_ = world
    return np.asarray(evaluation.team_observations(env, params, keys).task_tokens[:, 0].argmax(-1))


@pytest.mark.parametrize("chunk", [8, 7, 3])
def test_chunks_and_padding_change_nothing(world, monkeypatch, chunk: int) -> None:
    env, params, meta, executor, executor_params = world
    keys = evaluation.query_keys("test", 13)
    expected = np.asarray(params.payoff)[contexts_of(world, keys), 1]
    monkeypatch.setattr(evaluation, "CHUNK", chunk)
    seen: list[int] = []
    arguments = (env, params, meta, jnp.int32(1), executor, executor_params, keys)
    outcome = evaluation.evaluate(*arguments, replicates=2, advance=seen.append)
    assert np.array_equal(outcome["reward"], expected)
    assert all(values.shape == (13,) for values in outcome.values())
    assert sum(seen) == 26 and len(seen) == -(-13 // chunk)
    rewards, costs = evaluation.reward_matrix(
        env, params, meta, jnp.arange(2), executor, executor_params, keys, replicates=range(1)
    )
    assert rewards.shape == (1, 2, 13) and costs.shape == (2, 13)
    assert np.array_equal(rewards[0, 1], expected)


@dataclasses.dataclass(frozen=True)
class Noisy(Probe):
    """A probe of many contexts: the query draws one, the noise moves it on, and each pays another amount."""

    contexts: int = 97

    def reseed(self, key, state, params):
        moved = (state.context + jax.random.randint(key, (), 0, self.contexts)) % self.contexts
        return dataclasses.replace(state, context=moved)


def test_rows_of_an_index_are_cells_of_the_matrix() -> None:
    """A reward names its query, its noise and its row, so that all three have to agree."""
    payoff = jnp.asarray(np.random.default_rng(1).permutation(97 * 2).reshape(97, 2), jnp.float32)
    env, params = Noisy(), ProbeParams(payoff, payoff)
    keys = evaluation.query_keys("validation", 24)
    arguments = (env, params, TemplatePolicy(env), jnp.arange(2), ActExecutor(), None, keys)
    matrix, costs = evaluation.reward_matrix(*arguments, replicates=range(1, 4))
    assert matrix.shape == (3, 2, 24) and costs.shape == (2, 24)
    index = np.random.default_rng(0).integers(0, 2, (5, 24))
    played = evaluation.reward_of_rows(*arguments, index, replicates=range(1, 4))
    assert played.shape == (3, 5, 24)
    expected = np.stack([matrix[replicate][index, np.arange(24)] for replicate in range(3)])
    assert np.array_equal(played, expected)
    assert (matrix[0] == matrix[1]).mean() < 0.2  # replicates meet other noise …
    rows = np.asarray(payoff)
    met = [[np.argwhere(rows == reward)[0, 0] for reward in row] for row in matrix[0]]
    assert met[0] == met[1]  # … and rows the same
    each = evaluation.evaluate(*arguments[:3], jnp.int32(1), ActExecutor(), None, keys, replicates=3)["reward"]
    again, _ = evaluation.reward_matrix(*arguments, replicates=range(3))
    assert np.allclose(each, again[:, 1].mean(axis=0))


def test_all_methods_meet_the_same_instances(world) -> None:
    """Whatever a policy draws, the query behind key i is the same: here, its context."""
    env, params, meta, executor, executor_params = world
    keys = evaluation.query_keys("test", 40)
    context = contexts_of(world, keys)
    assert 5 < context.sum() < 35
    payoff = np.asarray(params.payoff)
    random = evaluation.evaluate(env, params, RandomPolicy(env), None, executor, executor_params, keys)["reward"]
    for tier in (0, 1):
        fixed = evaluation.evaluate(env, params, meta, jnp.int32(tier), executor, executor_params, keys)["reward"]
        assert np.array_equal(fixed, payoff[context, tier])
    # All four pay-offs differ, so that a random choice's reward names the context that it met.
    assert all(reward in payoff[c] for reward, c in zip(random, context, strict=True))
    assert len(set(random.tolist())) == 4


def test_summary_is_the_mean_over_queries_with_an_interval() -> None:
    outcomes = {"reward": np.arange(100.0), "cost": np.ones(100)}
    summary = evaluation.summarise(outcomes)
    assert summary["reward"].mean == pytest.approx(49.5)
    low, high = summary["reward"].ci95
    assert 40 < low < 49.5 < high < 60
    assert summary["cost"].ci95 == (1.0, 1.0)


# --- anchors


def test_the_hash_changes_with_any_number() -> None:
    _, params = jaxmas.make("workflow-mixed-v0", num_agents=3)
    leaves, tree = jax.tree.flatten(params)
    seen = {anchors.params_hash(params)}
    for place, leaf in enumerate(leaves):
        changed = leaves.copy()
        flat = jnp.ravel(leaf)
        changed[place] = flat.at[-1].add(1).reshape(leaf.shape)
        seen.add(anchors.params_hash(jax.tree.unflatten(tree, changed)))
    assert len(seen) == 1 + len(leaves)
    assert anchors.params_hash(jax.tree.map(jnp.copy, params)) == anchors.params_hash(params)


def test_a_score_needs_its_own_setting(monkeypatch) -> None:
    env, params = jaxmas.make("probe-context-v0")
    anchor = {
        "params": anchors.params_hash(params),
        "random": {"mean": 0.5, "standard_error": 0.01},
        "strategy": {"mean": 0.9, "standard_error": 0.01},
    }
    known = {anchors.setting("probe-context-v0", env, "act"): anchor}
    monkeypatch.setattr(anchors, "frozen_anchors", lambda: known)
    score = anchors.coordination_score
    assert score("probe-context-v0", env, params, "act", 0.7) == pytest.approx(0.5)
    assert score("probe-context-v0", env, params, "act", 0.5) == pytest.approx(0)
    assert score("probe-context-v0", env, params, "act", 1.1) == pytest.approx(1.5)
    overridden = dataclasses.replace(params, payoff=params.payoff * 1.001)
    assert score("probe-context-v0", env, overridden, "act", 0.7) is None
    assert score("probe-bandit-v0", env, params, "act", 0.7) is None
    assert score("probe-context-v0", jaxmas.make("probe-context-v0", num_agents=3)[0], params, "act", 0.7) is None
    assert score("probe-context-v0", env, params, "another", 0.7) is None
    anchor["strategy"]["mean"] = 0.56  # under five standard errors of the difference
    assert score("probe-context-v0", env, params, "act", 0.7) is None


def test_the_frozen_anchors_hold_for_the_scenarios_as_they_are() -> None:
    """A scenario whose numbers changed without new anchors would lose its score silently."""
    for name, anchor in anchors.frozen_anchors().items():
        scenario, agents, _, _ = name.split("/")
        _, params = jaxmas.make(scenario, num_agents=int(agents.removeprefix("agents=")))
        assert anchor["params"] == anchors.params_hash(params), name
        assert anchor["random"]["mean"] < anchor["strategy"]["mean"], name


@pytest.fixture
def freezing(tmp_path, monkeypatch):
    """Freeze scenarios with made-up outcomes: rewards of rows from a given generator, 0.1 for random, 0.6 for rows."""

    def freeze_with(scenarios: tuple[str, ...], seed: int):
        rng = np.random.default_rng(seed)

        def table(env, params, meta, rows, *rest, **options):
            shape = (1, len(jax.tree.leaves(rows)[0]), 4)
            return rng.normal(size=shape), np.zeros(shape[1:])

        monkeypatch.setattr(evaluation, "reward_matrix", table)
        freeze.main(freeze.Settings(scenarios, validation=4, test=4, out=tmp_path / "anchors.json"))
        return json.loads((tmp_path / "anchors.json").read_text())

    def outcome(env, params, meta, *rest, **options):
        return {"reward": (0.1 if isinstance(meta, RandomPolicy) else 0.6) + np.linspace(-0.1, 0.1, 64)}

    monkeypatch.setattr(evaluation, "evaluate", outcome)
    return freeze_with


def test_freeze_writes_what_scores_and_strategies_read(freezing, monkeypatch) -> None:
    written = freezing(("workflow-mixed-v0", "workflow-roster-v0"), seed=0)
    monkeypatch.setattr(anchors, "frozen_anchors", lambda: written)
    for scenario in ("workflow-mixed-v0", "workflow-roster-v0"):
        env, params = jaxmas.make(scenario)
        anchor = written[anchors.setting(scenario, env, SCENARIOS[scenario].executor)]
        assert anchor["params"] == anchors.params_hash(params)
        assert anchor["random"]["mean"] == pytest.approx(0.1) and anchor["strategy"]["mean"] == pytest.approx(0.6)
        assert anchor["strategy"]["name"] in freeze.TUNABLE
        assert 0 < anchor["strategy"]["standard_error"] < 0.01
        for strategy, rows in freeze.TUNABLE.items():
            assert anchors.tuned_row(strategy, env, params) in rows
    moved = [name for name, rows in freeze.TUNABLE.items() if anchors.tuned_row(name, env, params) != rows[0]]
    assert len(moved) > 3  # tuned, not left at their defaults
    assert anchors.tuned_row("chain", jaxmas.make("workflow-pool-v0")[0]) is None


def test_where_nothing_is_tuned_the_strongest_strategy_is_the_anchor(freezing, monkeypatch) -> None:
    found = {"first-come": 0.3, "hungarian": 0.7, "random": 0.9}
    policies = [SimpleNamespace(name=name) for name in found]
    monkeypatch.setattr(freeze, "strategies_of", lambda world: policies)
    monkeypatch.setattr(freeze, "play", lambda world, policy, keys: {"reward": np.array([found[policy.name]])})
    (anchor,) = freezing(("warehouse-small-v0",), seed=0).values()
    assert anchor["strategy"]["name"] == "hungarian" and anchor["strategy"]["mean"] == pytest.approx(0.6)
    assert anchor["random"]["mean"] == pytest.approx(0.1) and not anchor["tuned"]


def test_freezing_one_more_scenario_leaves_the_others_as_they_are(freezing) -> None:
    before = freezing(("workflow-mixed-v0",), seed=0)
    after = freezing(("workflow-roster-v0",), seed=1)
    assert {name: after[name] for name in before} == before


FAMILIES = ["workflow-mixed-v0", "workflow-longchain-v0", "warehouse-small-v0", "probe-context-v0"]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_says_what_is_single_and_what_is_constant(name: str) -> None:
    env, _ = jaxmas.make(name, num_agents=8)
    templates = TEMPLATES[env.family]
    for kind in ("single", "constant"):
        which = headroom.which_rows(templates, kind)
        assert which.shape == (len(templates.rows),) and which.any()
    constants = headroom.field_constants(env)
    for field in env.plan_space.fields:
        assert constants[field]
        for plan in constants[field]:
            repaired, _ = env.plan_space.project(dataclasses.replace(plan, active=jnp.ones(8, bool)))
            # A ring of links is cut where it leaves the team.
            assert np.array_equal(getattr(repaired, field), getattr(plan, field)) or field in ("active", "reads")


@pytest.mark.slow
def test_headroom_is_measured_where_plans_have_few_fields() -> None:
    env, params = jaxmas.make("workflow-longchain-v0")
    world = headroom.World(env, params, *jaxmas.load_executor("attempt", env, params))
    settings = headroom.HeadroomSettings(
        validation=8, test=8, replicates=1, oracle_queries=4, oracle_plans=4, clamp_queries=2, clamp_plans=2,
        clamp_rounds=(2,), clamp_final=2,
    )  # fmt: skip
    measured = headroom.measure(world, settings)
    assert set(measured["clamp"]) == set(env.plan_space.fields)
    assert measured["strategy"]["mean"] > measured["random"]["mean"]
