"""Other worlds for a trained designer: what they are, and who fits them."""

import dataclasses
import gzip
import json
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxmas
from jaxmas.anchors import params_hash
from jaxmas.catalog import ALGORITHMS
from jaxmas.checkpoints import atomic_write, atomic_write_json
from jaxmas.environments.workflow.query import SHAPES
from jaxmas.environments.workflow.scenarios import SEEN
from jaxmas.experiments import study
from jaxmas.experiments.generalisation import tables
from jaxmas.experiments.generalisation.systems import PARTS, WORLDS, Settings, carried_over, world_of
from jaxmas.runs import LoadedPolicy


def shapes_of(world: str) -> set[str]:
    built = world_of(world)
    draw = jax.jit(jax.vmap(lambda key: built.env.reset(key, built.params)[0].query.shape))
    return {SHAPES[shape] for shape in np.asarray(draw(jax.random.split(jax.random.key(0), 256)))}


def test_the_worlds_are_what_they_are_called() -> None:
    assert shapes_of("narrow") == set(SEEN)
    assert shapes_of("held-out shapes") == set(SHAPES) - set(SEEN)
    assert shapes_of("mixed") == set(SHAPES)
    assert world_of("mixed, 32 agents").env.num_agents == 32
    assert world_of("pool of models").env.plan_space.num_tiers == 5
    for part in PARTS.values():
        assert params_hash(jaxmas.make(part.scenario)[1]) == part.params


@pytest.mark.parametrize(("name", "fits"), [("meta-skill", True), ("masrouter", False), ("aflow", False)])
def test_who_fits_another_pool(name: str, fits: bool) -> None:
    """Everyone fits other queries and teams; with other tiers only who chooses templates, whose tiers are grades."""
    world = world_of("narrow")
    config = ALGORITHMS[name](width=8)
    state = config.initial_state(world.env, world.params, jax.random.key(0))
    policy = LoadedPolicy(name, *config.designer(world.env, state, greedy=True))
    found = {other: carried_over(policy, world_of(other)) for other in WORLDS}
    assert {other for other in WORLDS if found[other] is None} == (set() if fits else {"pool of models"})
    there = found["mixed, 32 agents"]
    assert there is not None
    world = world_of("mixed, 32 agents")
    team = world.env.reset(jax.random.key(0), world.params)[1]
    assert there.meta.apply(there.meta_params, there.meta.init(), team, jax.random.key(1))[0].active.shape == (32,)


def test_the_table(tmp_path: Path) -> None:
    settings = Settings(test=4, out=tmp_path)
    part = dataclasses.replace(PARTS["narrow"], seeds=2)
    played = {"reward": [0.25] * 4, "success": [1, 0, 1, 0], "cost": [0.5] * 4}
    run = {"provenance": {"commit": "c", "device": "d"}, "trained": played, "notes": {"worlds": {"narrow": played}}}
    record = {**study.sizes(part, settings), "system": study.described(part.systems["aflow"]), "runs": [run, run]}
    atomic_write(study.record_of("narrow", "aflow", settings), gzip.compress(json.dumps(record).encode()))
    known = {"reward": study.estimate(np.array([[0.5, 0.25]]))}
    for world in WORLDS:
        built = world_of(world)
        sizes = {"params": params_hash(built.params), "num_agents": built.env.num_agents, "test": 4}
        # What the study of designers keeps of the same world is taken as it is.
        file = f"generalisation_references/{study.folder(world)}.json"
        file = {"mixed": "designers_mixed/references.json"}.get(world, file)
        atomic_write_json(tmp_path / file, {**sizes, "references": {name: known for name in tables.SHOWN}})
    tables.write("narrow", part, settings)
    text = (tmp_path / "generalisation_narrow.md").read_text()
    assert "| aflow | 2 | 0.250 [0.250, 0.250] | – | – | – | – |" in text
    assert "| best strategy there | – | 0.375" in text
