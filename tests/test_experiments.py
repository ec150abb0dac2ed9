"""Check what the published tables say about how they were made."""

import shlex

import pytest
import tyro

from jaxmas.experiments.meta_skill_study import Settings, command


@pytest.mark.parametrize(
    "settings", [Settings(), Settings(seeds=2, test=64, variants=("template, group", "template, PPO"))]
)
def test_the_command_of_a_study_gives_its_settings(settings: Settings) -> None:
    words = shlex.split(command(settings))
    assert words[:3] == ["python", "-m", "jaxmas.experiments.meta_skill_study"]
    assert tyro.cli(Settings, args=words[3:]) == settings
