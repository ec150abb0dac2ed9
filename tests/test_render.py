"""Check that pictures show what happened: the data taken from states, the layout, and the files."""

import dataclasses
import io
import itertools
import os
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import AGGREGATOR, CRITIC, ENV, PASS, FixedPlan, Game, make_plan, make_query, noise, workflow_params
from PIL import Image, ImageSequence

from jaxmas import render
from jaxmas.environments.workflow import render as workflow_render
from jaxmas.environments.workflow.scripted import ScriptedExecutor
from jaxmas.environments.workflow.workflow import ADVERSARIAL, FAULTY, Workflow
from jaxmas.errors import JaxmasError
from jaxmas.render import Before
from jaxmas.rollout import Episode, Policies, play_query

SIXTEEN = dataclasses.replace(ENV, num_agents=16, coordination_interval=4)
KEY = jax.random.key(5)


def team(env: Workflow, members: int):
    """Return a plan in which each member reads the next ones; the last is a critic where there are three."""
    reads = {slot: [other for other in range(slot + 1, min(slot + 4, members))] for slot in range(members)}
    role = np.arange(members) % env.num_skills
    if members >= 3:
        role[-1] = CRITIC
    return make_plan(env.plan_space, range(members), role=role, tier=np.arange(members) % 3, reads=reads, quorum=2)


def cast(env: Workflow, members: int, **changes: Any) -> dict[str, Any]:
    """Return scenario to executor parameters, as ``show`` takes them."""
    params = workflow_params(env, **{"shape": "tree", **noise(0.3), **changes})
    executor_params = {"tables": params.tables, "error": jnp.float32(0.1)}
    return {
        "scenario": "a-scenario",
        "env": env,
        "params": params,
        "policy_name": "a policy",
        "meta": FixedPlan(),
        "meta_params": team(env, members),
        "executor": ScriptedExecutor(),
        "executor_params": executor_params,
    }


@pytest.fixture(scope="module")
def players() -> dict[str, Any]:
    return cast(SIXTEEN, 8, slack=(1.0, 1.0), faulty=np.arange(16) == 1)


@pytest.fixture(scope="module")
def story(players):
    return render.tell(**players, key=KEY)


def durations_of(path: Path) -> list[int]:
    """Return how long each frame of a GIF stays."""
    with Image.open(path) as gif:
        return [frame.info["duration"] for frame in ImageSequence.Iterator(gif)]


# What a frame shows


def game(parents, plan, **changes):
    params = workflow_params(**changes)
    return Game(params, make_query(params, parents), plan)


def watch(played: Game, steps: list[dict[str, int]]):
    """Step a game and return the scene of each state."""
    state = jax.device_get(played.state)
    scenes = [workflow_render.read(ENV, played.params, state, None)]
    for changes in steps:
        actions = played.exact()
        for name, action in changes.items():
            actions[int(name[1:])] = action
        played.step(**changes)
        earlier, state = state, jax.device_get(played.state)
        scenes.append(workflow_render.read(ENV, played.params, state, Before(earlier, scenes[-1], actions)))
    return scenes


def test_votes_and_answers_are_those_given():
    plan = make_plan(ENV.plan_space, (0, 2), reads={0: [2]}, task=[0, 1])
    played = game([[1], []], plan)
    truth = np.asarray(played.state.query.answer)
    wrong = int(truth[1] + 1) % 8
    before, after = watch(played, [{"a2": wrong}])
    assert before.working.tolist()[:3] == [-1, -1, 1] and after.working.tolist()[:3] == [0, -1, -1]
    assert after.events.tolist() == [[2, 1, wrong]]
    assert np.array_equal(after.votes, np.eye(8, dtype=int)[[wrong]] * [[0], [1]])
    assert after.last_token.tolist()[:3] == [-1, -1, wrong] and after.last_task[2] == 1
    assert after.edges.tolist() == [[2, 0]] and after.live.tolist() == [True] and before.live.tolist() == [False]
    assert len(before.skill) == 2 and before.deadline == int(played.state.query.deadline)
    assert np.array_equal(after.answer, truth[:2])


def test_a_passing_critic_gives_no_vote():
    plan = make_plan(ENV.plan_space, (0, 1), role=[0, CRITIC], reads={0: [1], 1: [0]}, quorum=2)
    scenes = watch(game([[]], plan), [{}, {"a1": PASS}])
    critic = [event for event in scenes[2].events.tolist() if event[0] == 1]
    assert critic == [[1, 0, workflow_render.PASSED]]
    assert scenes[2].last_token[1] == -1
    assert scenes[2].votes.sum() == sum(token >= 0 for scene in scenes for _, _, token in scene.events)


def test_answers_of_faulty_slots_are_read_from_the_board():
    adversarial = np.zeros(ENV.num_agents)
    adversarial[0] = 1.0
    played = game([[]], make_plan(ENV.plan_space, (0,), quorum=3), adversarial=adversarial)
    scenes = watch(played, [{"a0": PASS}])
    agreed = (scenes[0].answer[0] + int(played.state.query.distraction[0])) % 8
    assert scenes[0].character[0] == ADVERSARIAL
    assert scenes[1].events.tolist() == [[0, 0, agreed]] and scenes[1].votes[0, agreed] == 1


def test_the_reporter_is_the_aggregator():
    plan = make_plan(ENV.plan_space, (0, 3), role=[0, AGGREGATOR], reads={3: [0]})
    (scene,) = watch(game([[]], plan), [])
    assert scene.reporter == 3 and scene.active.tolist() == [True, False, False, True, *[False] * 4]


def test_a_story_holds_every_state_and_votes_add_up(story, players):
    scenes = story.scenes
    assert [scene.step for scene in scenes] == list(range(len(scenes)))
    assert scenes[-1].over and not any(scene.over for scene in scenes[:-1])
    assert scenes[-1].character[1] == FAULTY
    told = sum(len(scene.events) for scene in scenes)
    assert told == scenes[-1].attempts > 0
    for before, after in itertools.pairwise(scenes):
        assert np.array_equal(after.events[:, 1], before.working[after.events[:, 0]])
        assert np.all(after.votes.sum(axis=1) <= before.votes.sum(axis=1) + len(after.events))


def test_the_story_is_the_episode_that_evaluation_counts(story, players):
    who = Policies(*(players[name] for name in ("meta", "meta_params", "executor", "executor_params")))
    noise = jax.random.fold_in(KEY, 1)

    @jax.jit
    def evaluated():
        state, _ = SIXTEEN.reset(KEY, players["params"])
        state = SIXTEEN.reseed(noise, state, players["params"])
        return play_query(SIXTEEN, players["params"], who, Episode(state, (), ()), noise)[1]

    steps = evaluated()
    outcome = {name: float(values[-1]) for name, values in steps.metrics.items()}
    assert story.reward == pytest.approx(float(jnp.sum(steps.reward)))
    assert story.scenes[-1].attempts == outcome["attempts"]
    assert len(story.scenes) - 1 == round(outcome["latency"] * SIXTEEN.horizon)
    assert story.scenes[-1].right == outcome["success"]


# Layout


def test_layers_keep_nodes_apart_and_give_long_edges_a_lane():
    level = {0: 0, 1: 1, 2: 1, 3: 2}
    layout = workflow_render.layered(level, [(1, 0), (2, 0), (3, 1), (3, 0)], 6.0, 4.0)
    (x0, y0), (x3, y3) = layout.place[0], layout.place[3]
    assert x0 > layout.place[1][0] == layout.place[2][0] > x3
    assert len(layout.way[3, 0]) == 3 and len(layout.way[1, 0]) == 2
    lane = layout.way[3, 0][1]
    assert all(abs(lane[1] - layout.place[node][1]) > 0.5 * layout.row for node in (1, 2))
    assert 0 < y0 < 4 and 0 < y3 < 4


@pytest.mark.parametrize(
    "reads",
    [
        {},
        {0: [1, 2, 3, 4, 5]},
        {slot: [slot + 1] for slot in range(5)},
        {slot: [other for other in range(6) if other != slot] for slot in range(6)},
        {0: [1, 2], 1: [3, 4], 2: [5]},
    ],
    ids=["copies", "star", "chain", "mesh", "tree"],
)
def test_a_team_fits_its_panel(reads, story):
    edges = np.array([(sender, reader) for reader, senders in reads.items() for sender in senders]).reshape(-1, 2)
    scene = dataclasses.replace(story.scenes[0], edges=edges, assigned=np.full(16, -1), reporter=0)
    layout = workflow_render.team_layout(scene, list(range(6)), 4.0, 5.0)
    spots = np.array([layout.place[member] for member in range(6)])
    assert np.all(spots > 0.2) and np.all(spots < [3.9, 4.9])
    gaps = np.linalg.norm(spots[:, None] - spots[None], axis=-1)[~np.eye(6, dtype=bool)]
    assert gaps.min() > 0.5


@pytest.mark.parametrize("level", [np.arange(200), np.repeat([0, 1, 2], [1, 10, 90]), np.zeros(1, int)])
def test_dots_of_large_graphs_keep_their_distance(level):
    places, pitch, _ = workflow_render._dot_places(level, 6.0, 3.0)
    assert np.all(places > 0) and np.all(places < [6, 3])
    gaps = np.linalg.norm(places[:, None] - places[None], axis=-1) + 9 * np.eye(len(level))
    assert gaps.min() > 0.99 * pitch


def test_long_stories_are_thinned():
    assert render.frame_indices(3) == [0, 1, 2]
    indices = render.frame_indices(1000)
    assert len(indices) == render.MAX_FRAMES and indices[0] == 0 and indices[-1] == 999


# Files


def test_show_writes_a_frame_per_step(players, story, tmp_path):
    paths = render.show(**players, out=tmp_path / "new", key=KEY)
    assert [path.name for path in paths] == ["query.png", "query.gif"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["query.gif", "query.png"]
    picture = Image.open(paths[0])
    durations = durations_of(paths[1])
    assert picture.size == Image.open(paths[1]).size == (1200, 760)
    assert len(durations) == len(story.scenes)
    assert durations[-1] == render.LAST_FRAME_MS and set(durations[:-1]) == {render.FRAME_MS}


def test_a_report_picture_is_small_and_exact_in_its_colours(players):
    data = render.query_png(**players, key=KEY)
    assert len(data) <= render.REPORT_BYTES
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).reshape(-1, 3)
    for colour in (workflow_render.RIGHT, workflow_render.WRONG):
        exact = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
        assert np.any(np.all(pixels == exact, axis=1))


def test_a_report_picture_shrinks_to_fit(story, monkeypatch):
    monkeypatch.setattr(render, "DPI", 40)
    whole = render.story_png(SIXTEEN, story)
    less = render.story_png(SIXTEEN, story, max_bytes=len(whole) - 1)
    assert len(less) < len(whole)
    assert Image.open(io.BytesIO(less)).width < Image.open(io.BytesIO(whole)).width
    with pytest.raises(JaxmasError, match="lowest resolution"):
        render.story_png(SIXTEEN, story, max_bytes=10)


@pytest.mark.parametrize(("agents", "members", "subtasks"), [(1, 1, 2), (256, 200, 64)])
def test_the_smallest_and_a_large_team_are_drawn(agents, members, subtasks):
    env = dataclasses.replace(ENV, num_agents=agents, max_subtasks=subtasks, horizon=8, coordination_interval=8)
    players = cast(env, members)
    params = players["params"]

    @jax.jit
    def start():
        return env.coordinate(KEY, env.reset(KEY, params)[0], players["meta_params"], params)[0]

    state = start()
    scene = workflow_render.read(env, params, jax.device_get(state), None)
    assert scene.active.sum() == members
    data = render.story_png(env, render.Story("a-scenario", "a policy", [scene], 0.0))
    assert Image.open(io.BytesIO(data)).format == "PNG"


def test_nothing_is_half_written_when_drawing_fails(players, tmp_path, monkeypatch):
    (tmp_path / "query.png").write_bytes(b"old")
    drawn = []

    def draw(figure, story, index):
        drawn.append(index)
        if index:
            raise RuntimeError("no ink")

    monkeypatch.setattr(workflow_render, "draw", draw)
    with pytest.raises(RuntimeError, match="no ink"):
        render.show(**players, out=tmp_path, key=KEY)
    assert drawn == [0, 1]
    assert [path.name for path in tmp_path.iterdir()] == ["query.png"]
    assert (tmp_path / "query.png").read_bytes() == b"old"


def test_nothing_is_half_written_when_the_disk_fails(tmp_path, monkeypatch):
    def replace(source, target):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match="disk full"):
        render._write(tmp_path / "query.png", b"new")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_family_is_named():
    class Warehous(Workflow):
        family: ClassVar[str] = "warehous"

    with pytest.raises(JaxmasError, match="warehous"):
        render.renderer_of(Warehous())
