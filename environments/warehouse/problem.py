"""Problem files of the League of Robot Runners: a map, where robots start, tasks of several stops, and delays.

A problem is a JSON file that names the others: a MovingAI map, an ``.agents`` file (how many, then a start each) and a
``.tasks`` file (how many, then the stops of each, in order). Cells are written as row · width + column.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxmas.environments.warehouse.grid import Grid, read_map
from jaxmas.errors import JaxmasError, refuse


@dataclasses.dataclass(frozen=True)
class Delays:
    """When a robot stops for a while: with ``chance`` at every step, for a number of steps drawn from a range."""

    chance: float = 0.0
    shortest: int = 1
    longest: int = 1
    gaussian: tuple[float, float] | None = None
    """Mean and deviation of the duration, as shares of the range; None draws all durations alike."""


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """What a problem file says; cells are numbers of free cells, as in ``Grid``."""

    grid: Grid
    starts: Int[np.ndarray, "num_agents"]
    stops: Int[np.ndarray, "orders stops"]
    """The stops of each task, in order; -1 where it has fewer than others."""
    revealed: float
    """Open tasks at any time, per robot."""
    delays: Delays


def read_problem(file: Path) -> Problem:
    """Read a problem and the files that it names.

    Raises:
        JaxmasError: where one of them is missing, or says what cannot be.
    """
    said = _said(file)
    grid = read_map(file.parent / said["mapFile"])
    starts = _cells(file.parent / said["agentFile"], grid)
    tasks = _cells(file.parent / said["taskFile"], grid)
    team = said["teamSize"]
    refuse(team > len(starts), f"{file}: teamSize is {team}; {said['agentFile']} has {len(starts)} starts")
    first = [stops[0] for stops in starts[:team]]
    refuse(len(set(first)) < team, f"{file}: two robots start on one cell")
    longest = max(len(stops) for stops in tasks)
    padded = [[*stops, *[-1] * (longest - len(stops))] for stops in tasks]
    apart = len(set(grid.part[[*first, *(cell for stops in tasks for cell in stops)]])) > 1
    refuse(apart, f"{file}: some robot has no way to some task; on {grid.name} all have to be in one part")
    revealed = float(said.get("numTasksReveal", 1))
    refuse(revealed <= 0, f"{file}: numTasksReveal is {revealed}; it has to be above 0")
    return Problem(grid, np.array(first), np.array(padded), revealed, _delays(file, said.get("delayConfig")))


def _said(file: Path) -> dict[str, Any]:
    """Return what the JSON file says."""
    try:
        said = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise JaxmasError(f"{file} cannot be read as a problem: {error}") from None
    needed = {"mapFile": str, "agentFile": str, "taskFile": str, "teamSize": int}
    for name, kind in needed.items():
        known = isinstance(said, dict) and isinstance(said.get(name), kind)
        refuse(not known, f"{file} is no problem file: it needs {', '.join(needed)}, and {name} is none")
    refuse(said["teamSize"] < 1, f"{file}: teamSize is {said['teamSize']}; it has to be at least 1")
    return said


def _cells(file: Path, grid: Grid) -> Sequence[list[int]]:
    """Return the lists of cells of an agents or tasks file, as numbers of free cells."""
    try:
        lines = [line.strip() for line in file.read_text().splitlines()]
        written = [line for line in lines if line and not line.startswith("#")]
        count, *rows = [[int(cell) for cell in line.split(",")] for line in written]
    except (OSError, ValueError) as error:
        raise JaxmasError(f"{file} cannot be read as a count and lines of cells: {error}") from None
    refuse(len(rows) < count[0] or not rows, f"{file} has {len(rows)} lines after its count of {count[0]}")
    number = grid.number.ravel()
    for row in rows[: count[0]]:
        wrong = [cell for cell in row if not (0 <= cell < number.size and number[cell] >= 0)]
        refuse(bool(wrong), f"{file}: cell {(wrong or [0])[0]} is not a free cell of {grid.name}")
    return [[int(number[cell]) for cell in row] for row in rows[: count[0]]]


def _delays(file: Path, said: Any) -> Delays:
    """Return when robots stop for a while; never, where the file does not say."""
    if not said:
        return Delays()
    try:
        gaussian = said.get("durationModel", "uniform") == "gaussian"
        shape = (float(said["gaussMeanRatio"]), float(said["gaussStdRatio"])) if gaussian else None
        delays = Delays(float(said["pDelay"]), int(said["minDelay"]), int(said["maxDelay"]), shape)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise JaxmasError(f"{file}: delayConfig is not understood: {error}") from None
    fits = 0 <= delays.chance <= 1 and 1 <= delays.shortest <= delays.longest
    refuse(not fits, f"{file}: delayConfig needs pDelay of 0 to 1 and 1 <= minDelay <= maxDelay")
    return delays
