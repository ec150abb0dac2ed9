"""Check that every hand-crafted strategy builds the team that its name and its description promise."""

import dataclasses
import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import CRITIC, GENERALIST, SKILLS, compiled, make_query

import jaxmas
from jaxmas.algorithms import workflow_plans as grammar
from jaxmas.algorithms.workflow_plans import HARD, template
from jaxmas.algorithms.workflow_strategies import MAX_TRIALS, TUNABLE
from jaxmas.anchors import tuned_row
from jaxmas.environments.workflow.workflow import Workflow
from jaxmas.policies import TemplatePolicy
from jaxmas.registry import STRATEGIES, TEMPLATES

ENV = Workflow(num_agents=16, max_subtasks=8)
PARENTS = [[1, 2], [3], [3, 4], [], []]
SKILL = [2, 0, 3, 1, 1, 0, 0, 0]
DIFFICULTY = [HARD * 0.4, HARD * 0.8, HARD * 1.2, HARD * 0.1, HARD * 2, 0, 0, 0]
SUBTASKS = len(PARENTS)
GRADES = {"weak": 0, "middle": 1, "strong": 2}

names = pytest.mark.parametrize("name", [name for name in TUNABLE])


@functools.cache
def team():
    """Return what a designer that sees clearly is shown of a query of five subtasks."""
    _, params = jaxmas.make("workflow-mixed-v0", num_agents=ENV.num_agents)
    params = dataclasses.replace(params, designer_noise=jnp.float32(0))
    query = make_query(params, PARENTS, ENV, skill=SKILL, difficulty=DIFFICULTY)
    return compiled(ENV, "start")(jax.random.key(0), query, params)[1]


@functools.cache
def builder():
    return jax.jit(functools.partial(grammar.build, ENV))


def built(row):
    """Return a row's plan as numpy arrays; a row may be numbers or a template."""
    row = grammar.as_row(row) if isinstance(row, tuple) else row
    return jax.tree.map(np.asarray, builder()(row, team()))


def reads_of(plan, agent: int) -> set[int]:
    return set(plan.reads[agent][plan.reads[agent] >= 0].tolist())


def members_of(plan) -> list[int]:
    return np.flatnonzero(plan.active).tolist()


def topology(plan) -> dict[int, set[int]]:
    return {agent: reads_of(plan, agent) for agent in members_of(plan)}


def plans_of(name: str):
    return [(grammar.as_row(row), built(row)) for row in TUNABLE[name]]


# --- what holds for all


@names
def test_trials_are_equal_in_number_at_most_and_distinct(name: str) -> None:
    rows = TUNABLE[name]
    assert 1 <= len(rows) <= MAX_TRIALS == 12
    assert len(set(rows)) == len(rows)
    texts = [TEMPLATES["workflow"].describe(row) for row in rows]
    assert len(set(texts)) == len(texts)
    for text in texts:
        assert re.fullmatch(r"[a-z0-9 ,-]{10,80}", text), text


@names
def test_a_strategy_plays_one_of_its_rows(name: str) -> None:
    policy = jaxmas.make_strategy(name, ENV)
    assert isinstance(policy, TemplatePolicy)
    assert policy.row in TUNABLE[name]
    assert policy.row == (tuned_row(name, ENV) or TUNABLE[name][0])


@names
def test_slots_off_the_team_are_blank(name: str) -> None:
    for _, plan in plans_of(name):
        assert members_of(plan) == list(range(len(members_of(plan))))
        assert (plan.reads[~plan.active] == -1).all()


def test_every_registered_strategy_is_checked_here() -> None:
    assert set(STRATEGIES.names("workflow")) == set(TUNABLE) | {"random", "dylan-ranker", "cheap-first"}


def test_too_many_trials_are_refused() -> None:
    from jaxmas.algorithms.workflow_strategies import _rows

    with pytest.raises(ValueError, match="at most 12"):
        _rows("copies", tuple(range(1, 8)))


def test_template_rows_are_distinct_and_so_are_their_plans() -> None:
    rows = TEMPLATES["workflow"].rows
    assert len(set(rows)) == len(rows) > 180
    texts = [TEMPLATES["workflow"].describe(row) for row in rows]
    assert len(set(texts)) == len(texts)
    table = jax.jit(jax.vmap(functools.partial(grammar.build, ENV), in_axes=(0, None)))
    plans = table(TEMPLATES["workflow"].table(), team())
    flat = np.concatenate([np.asarray(leaf).reshape(len(rows), -1) for leaf in jax.tree.leaves(plans)], axis=1)
    assert len(np.unique(flat, axis=0)) > 0.8 * len(rows)  # some coincide on a query of few subtasks, or of one
    _, violations = jax.vmap(ENV.plan_space.project)(plans)
    assert not violations.any()


def test_names_and_words() -> None:
    assert grammar.describe(template()) == "one middle generalist, 1 vote"
    assert grammar.describe(template("mesh", 4, "skilled", "weak", "free", 1, 3)) == (
        "mesh of 4, weak skilled, 1 vote, 3 on the last"
    )
    assert grammar.describe(template("graph", 2, "skilled", "hard", "assigned", 2)) == (
        "2 hard skilled per subtask, 2 votes"
    )


# --- who reads whom


@pytest.mark.parametrize("tier", GRADES)
def test_single_agents(tier: str) -> None:
    for row, plan in plans_of(f"single-{tier}"):
        assert topology(plan) == {0: set()}
        assert plan.tier[0] == GRADES[tier]
        assert (plan.quorum == 1).all() and (plan.task == -1).all()
        assert int(row.size) == 1


def test_resampling_is_a_single_agent_with_more_votes() -> None:
    for row, plan in plans_of("single-resampling"):
        assert topology(plan) == {0: set()}
        assert (plan.quorum == int(row.quorum)).all() and int(row.quorum) > 1


def test_copies_read_nobody_and_the_reporter_reads_all() -> None:
    for row, plan in plans_of("self-consistency"):
        size = int(row.size)
        assert topology(plan) == {0: set(range(1, size))} | {copy: set() for copy in range(1, size)}
        assert plan.quorum[0] > 1
        assert len(set(plan.tier[:size])) == 1


def test_in_a_chain_each_reads_exactly_the_next() -> None:
    for row, plan in plans_of("chain"):
        size = int(row.size)
        assert topology(plan) == {agent: {agent + 1} if agent + 1 < size else set() for agent in range(size)}


def test_in_a_star_the_hub_reads_all_and_all_read_the_hub() -> None:
    for row, plan in plans_of("star"):
        size = int(row.size)
        assert topology(plan) == {0: set(range(1, size))} | {point: {0} for point in range(1, size)}


def test_a_tree_is_binary_and_reaches_the_root() -> None:
    for row, plan in plans_of("tree"):
        size = int(row.size)
        edges = topology(plan)
        assert edges == {a: {b for b in (2 * a + 1, 2 * a + 2) if b < size} for a in range(size)}
        assert sorted(itertools.chain(*edges.values())) == list(range(1, size))  # everyone has one reader


def test_layers_read_the_one_before_them() -> None:
    for row, plan in plans_of("layered"):
        size = int(row.size)
        edges = topology(plan)
        depth = {0: 0}
        for agent in range(size):
            for below in edges[agent]:
                assert depth.setdefault(below, depth[agent] + 1) == depth[agent] + 1, "an edge within or across layers"
        assert sorted(depth) == list(range(size))  # all are reached from the reporter
        layers = [{agent for agent in depth if depth[agent] == level} for level in range(max(depth.values()) + 1)]
        assert len(layers) > 2
        for above, below in itertools.pairwise(layers):
            assert all(edges[agent] == below for agent in above)


def test_in_a_mesh_everyone_reads_everyone() -> None:
    for row, plan in plans_of("mesh"):
        everyone = set(range(int(row.size)))
        assert topology(plan) == {agent: everyone - {agent} for agent in everyone}


def test_a_random_graph_is_sparse_and_the_reporter_reads_somebody() -> None:
    for row, plan in plans_of("random-graph"):
        size = int(row.size)
        edges = topology(plan)
        assert len(edges) == size and edges[0]
        assert all(len(read) <= 3 for read in edges.values())
        assert sum(map(len, edges.values())) < size * (size - 1)
        assert any(edges[agent] != {(a + agent) % size for a in edges[0]} for agent in range(size))  # no circulant


def test_the_graph_follows_the_subtasks_edges() -> None:
    for row, plan in plans_of("roles-by-skill"):
        assert members_of(plan) == list(range(SUBTASKS))
        assert plan.task[:SUBTASKS].tolist() == list(range(SUBTASKS))
        assert topology(plan) == {post: set(parents) for post, parents in enumerate(PARENTS)}
        assert plan.role[:SUBTASKS].tolist() == SKILL[:SUBTASKS]
        assert plan.quorum[0] == int(row.sink_quorum) and (plan.quorum[1:] == int(row.quorum)).all()


def test_several_specialists_per_subtask() -> None:
    for row, plan in plans_of("roles-by-skill-voting"):
        size = int(row.size)
        members = members_of(plan)
        assert len(members) == size * SUBTASKS
        for agent in members:
            post = agent % SUBTASKS
            assert plan.task[agent] == post
            assert plan.role[agent] == SKILL[post]
            read = reads_of(plan, agent)
            wanted = {parent + SUBTASKS * turn for parent in PARENTS[post] for turn in range(size)}
            fellows = {post + SUBTASKS * turn for turn in range(1, size)} if agent == 0 else set()
            assert read == wanted | fellows
        assert plan.quorum[0] > 1


# --- who is what


def test_generalists_and_specialists() -> None:
    generalists = built(template("mesh", 4, "generalist"))
    assert (generalists.role[:4] == GENERALIST).all()
    skilled = built(template("mesh", 7, "skilled"))
    assert skilled.role[:7].tolist() == [SKILL[agent % SUBTASKS] for agent in range(7)]
    spread = built(template("mesh", 7, "spread"))
    assert spread.role[:7].tolist() == [agent % SKILLS for agent in range(7)]


@pytest.mark.parametrize("name", ["reflection", "escalation"])
def test_the_critic_is_the_last_member(name: str) -> None:
    for row, plan in plans_of(name):
        size = int(row.size)
        assert plan.role[size - 1] == CRITIC
        assert (plan.role[: size - 1] < SKILLS).all()
        assert topology(plan) == {agent: set(range(size)) - {agent} for agent in range(size)}
    assert {int(row.size) for row, _ in plans_of("reflection")} == {2}


def test_escalation_ends_with_its_only_strong_member() -> None:
    for row, plan in plans_of("escalation"):
        size = int(row.size)
        assert plan.tier[:size].tolist() == [0] * (size - 1) + [2]


def test_tiers() -> None:
    for tier, grade in GRADES.items():
        assert (built(template("mesh", 4, tier=tier)).tier[:4] == grade).all()
    assert built(template("mesh", 5, tier="mixed")).tier[:5].tolist() == [0, 1, 2, 0, 1]
    hard = built(template("graph", 1, "skilled", "hard", "assigned")).tier[:SUBTASKS].tolist()
    assert hard == [0, 1, 2, 0, 2]


def test_grades_are_spread_over_five_tiers() -> None:
    env, params = jaxmas.make("workflow-pool-v0", num_agents=4)
    assert env.plan_space.num_tiers == 5
    seen = compiled(env, "reset")(jax.random.key(0), params)[1]
    build = jax.jit(functools.partial(grammar.build, env))
    tiers = [int(build(template(tier=tier), seen).tier[0]) for tier in ("weak", "middle", "strong")]
    assert tiers == [0, 2, 4]
    assert build(template("mesh", 3, tier="escalate"), seen).tier[:3].tolist() == [0, 0, 4]


def test_a_join_has_room_to_read_all_members_at_its_parents() -> None:
    """An inbox of eight takes three members at each of two parents, and two fellows at the sink; not four each."""
    plan = built(template("graph", 4, "skilled", "middle", "assigned", 7))
    assert len(members_of(plan)) == 3 * SUBTASKS
    for agent in members_of(plan):
        everyone = {parent + SUBTASKS * turn for parent in PARENTS[agent % SUBTASKS] for turn in range(3)}
        assert everyone <= reads_of(plan, agent)


def test_who_works_alone_takes_the_commonest_skill() -> None:
    assert built(template(roles="skilled")).role[0] == np.bincount(SKILL[:SUBTASKS]).argmax()


def test_tiers_in_turn_differ_between_the_members_at_a_subtask() -> None:
    tiers = built(template("graph", 3, "skilled", "mixed", "assigned", 3)).tier[: 3 * SUBTASKS]
    assert tiers.reshape(3, SUBTASKS).T.tolist() == [[0, 1, 2]] * SUBTASKS


def test_a_team_is_cut_to_the_slots_there_are() -> None:
    """Eight slots hold one member for each of five subtasks, and a second for three of them."""
    small = dataclasses.replace(ENV, num_agents=8)
    plan = grammar.build(small, template("graph", 2, "skilled", "middle", "assigned", 1), team())
    assert plan.active.all() and plan.task.tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert len(members_of(built(template("mesh", 99)))) == 16
