"""What the study of shifts compares.

A shift is announced where its numbers are shown to the designer, or else where its learner knows of it. The designer
sees a query's difficulty, ρ and hand-off noise, never skill tables, nor the tiers' noise and prices.

- *noise*: every attempt errs twice as easily. Announced, the difficulties that the designer sees are doubled;
  unannounced, all tiers are twice as noisy while it goes on seeing the old difficulties. Both are one and the same
  world, as an attempt errs by difficulty × tier noise.
- *skills*: two of four skills swap their tables. Nothing of them is shown; announced means that at the shift Adam's
  moments are fresh, and learning rates and entropy weights start again from the top of their schedules.
- *pool*: the strong model is served by the weak one at the strong one's price. Nothing is shown; announced as before.

Expected before the run:

- *skills*: coordination alone recovers next to nothing, as no plan helps who knows the wrong table; executors alone do
  about as well as both;
- *pool*: coordination alone recovers as soon as both, executors alone do not, as they cannot choose the model;
- *noise*: much of the loss cannot be recovered by anyone; coordination takes most of what can; announced, the designer
  does better right after the shift, as it plans for harder queries;
- fresh moments and schedules shorten recovery where much has to be learned anew (*skills*);
- a strategy that is chosen again gains in *pool*, and nothing in *skills*.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import tyro

from jaxmas.algorithms.metaagent_x import MetaAgentXConfig
from jaxmas.environments.workflow.params import WorkflowParams
from jaxmas.errors import check_numbers, refuse

SCENARIO = "workflow-mixed-v0"
EXECUTOR = "frozen-90"
Change = Callable[[WorkflowParams], WorkflowParams]
FACTOR = 2.0
"""Of the noise; a power of two, so that both orders of multiplication give the same bits."""


def swapped_skills(params: WorkflowParams) -> WorkflowParams:
    """Return a world in which the first two skills have each other's table."""
    return replace(params, tables=params.tables[jnp.array([1, 0, *range(2, len(params.tables))])])


def noisier(params: WorkflowParams) -> WorkflowParams:
    """Return a world in which every tier is noisier."""
    return replace(params, tier_noise=FACTOR * params.tier_noise)


def harder(params: WorkflowParams) -> WorkflowParams:
    """Return a world in which every subtask is harder, and seen to be."""
    return replace(params, mix=replace(params.mix, difficulty=FACTOR * params.mix.difficulty))


def without_the_strong_model(params: WorkflowParams) -> WorkflowParams:
    """Return a world whose dearest tier is as noisy as the cheapest, at its old price."""
    return replace(params, tier_noise=params.tier_noise.at[-1].set(params.tier_noise[0]))


@dataclasses.dataclass(frozen=True)
class Shift:
    """A change of the world's numbers."""

    change: Change
    shown: Change | None = None
    """The same change as the designer sees it; None where its observation shows nothing."""

    def world(self, params: WorkflowParams, announced: bool) -> WorkflowParams:
        """Return the world after the shift."""
        return (self.shown or self.change)(params) if announced else self.change(params)


SHIFTS = {
    "skills": Shift(swapped_skills),
    "noise": Shift(noisier, shown=harder),
    "pool": Shift(without_the_strong_model),
}
MODES = {"coordination": "designer-only", "executors": "executor-only", "both": "coupled"}
"""Who learns after the shift, and what MetaAgent-X calls it; the other side stays as it was."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Size of the study."""

    shifts: tyro.conf.Positional[tuple[str, ...]] = ()
    """Shifts to run, of skills, noise and pool; all by default."""
    small: bool = False
    """One shift, two seeds, few updates: some minutes on two cores."""
    seeds: int = 3
    updates: int = 192
    """Before the shift, and again after it."""
    every: int = 16
    """Updates between two measurements."""
    test: int = 512
    """Test queries of a measurement."""
    validation: int = 2048
    """Validation queries that strategies are chosen on."""
    runs: Path = Path("runs")
    out: Path = Path(__file__).resolve().parents[1] / "results"

    def __post_init__(self) -> None:
        """Refuse shifts and sizes that cannot be."""
        for shift in self.shifts:
            refuse(shift not in SHIFTS, f"unknown shift {shift!r}; the shifts are {', '.join(SHIFTS)}")
        check_numbers("shift", self, ("seeds", "updates", "every", "validation"), 1)
        check_numbers("shift", self, ("test",), 2)
        refuse(self.updates % self.every != 0, "updates have to be a multiple of every")

    @property
    def chosen(self) -> tuple[str, ...]:
        """Return the shifts to run."""
        return self.shifts or tuple(SHIFTS)

    @property
    def name(self) -> str:
        """Return how the names of the results begin."""
        return "shift_small" if self.small else "shift"


def sized(settings: Settings) -> Settings:
    """Return the settings in the size that is asked for."""
    if not settings.small:
        return settings
    return replace(settings, shifts=("noise",), seeds=2, updates=8, every=2, test=128, validation=256)


def config_of(mode: Any, settings: Settings) -> MetaAgentXConfig:
    """Return MetaAgent-X in a mode; its schedules are as long as all updates of a run."""
    updates = 2 * settings.updates
    return MetaAgentXConfig(
        mode=mode, space="template", updates=updates, queries=48, designs=8, executions=1, capacity=32
    )
