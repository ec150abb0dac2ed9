"""The warehouse scenarios: floors of three sizes, any map, and the problems of the League of Robot Runners."""

import functools
import os
from pathlib import Path

from jaxmas.environments.warehouse.grid import connected, generated, read_map, scattered
from jaxmas.environments.warehouse.motion import Motion
from jaxmas.environments.warehouse.params import WarehouseParams, problem_params, warehouse_params
from jaxmas.environments.warehouse.problem import read_problem
from jaxmas.environments.warehouse.warehouse import Warehouse
from jaxmas.errors import refuse
from jaxmas.registry import SCENARIOS, Scenario

REVEALED = 1.5
"""Open orders per robot."""
FLOORS = {"small": (4, 4, 8, 32), "medium": (8, 8, 16, 128), "large": (16, 16, 32, 512)}
"""Blocks of shelves down and across, stations, and robots."""
MOST_ROBOTS = 1024
MAP_GOALS = 256
"""Pick-ups of a map, spread over its cells, and as many stations: distances are known from these alone."""


@functools.cache
def floor(size: str) -> WarehouseParams:
    """Return the numbers of a floor; its distances are measured once."""
    down, across, stations, _ = FLOORS[size]
    return warehouse_params(generated((down, across), stations=stations))


def make(size: str, num_agents: int, *, coordination_interval: int = 8) -> tuple[Warehouse, WarehouseParams]:
    """Return a floor with so many robots."""
    return _with_robots(f"warehouse-{size}-v0", floor(size), num_agents, coordination_interval)


def make_map(
    num_agents: int = 32, *, coordination_interval: int = 8, map: str | os.PathLike[str] | None = None
) -> tuple[Warehouse, WarehouseParams]:
    """Return ``warehouse-map-v0``: robots and orders drawn on a MovingAI map, by default on scattered obstacles."""
    grid = scattered() if map is None else connected(read_map(Path(map)))
    params = warehouse_params(grid, most_goals=MAP_GOALS)
    return _with_robots("warehouse-map-v0", params, num_agents, coordination_interval)


def make_problem(
    num_agents: int | None = None, *, coordination_interval: int = 8, problem: str | os.PathLike[str] | None = None
) -> tuple[Warehouse, WarehouseParams]:
    """Return ``warehouse-problem-v0``: turning robots, by default on the small floor with drawn orders.

    A problem says where robots start, which tasks come, how many are open, and what delays there are; of its robots the
    first ``num_agents`` take part, by default as many as may.
    """
    if problem is None:
        small = warehouse_params(generated(FLOORS["small"][:2], stations=FLOORS["small"][2]), motion="turning")
        return _with_robots("warehouse-problem-v0", small, num_agents or 32, coordination_interval, motion="turning")
    read = read_problem(Path(problem))
    robots = len(read.starts) if num_agents is None else num_agents
    refuse(robots > len(read.starts), f"num_agents is {robots}; {problem} has {len(read.starts)} robots")
    refuse(robots > MOST_ROBOTS, f"{problem} has {robots} robots; --num-agents {MOST_ROBOTS} takes the first of them")
    orders = max(1, int(read.revealed * robots))
    cells = read.grid.num_cells
    env = Warehouse(robots, orders, cells, "turning", coordination_interval=coordination_interval)
    return env, problem_params(read)


def _with_robots(
    name: str, params: WarehouseParams, num_agents: int, coordination_interval: int, motion: Motion = "cardinal"
) -> tuple[Warehouse, WarehouseParams]:
    """Return a warehouse with so many robots, if there is room for them."""
    most = min(MOST_ROBOTS, len(params.place) // 2)
    refuse(num_agents > most, f"num_agents is {num_agents}; {name} has room for {most}")
    orders = max(2, round(REVEALED * num_agents))
    env = Warehouse(num_agents, orders, len(params.place), motion, coordination_interval=coordination_interval)
    return env, params


for _size, (_, _, _, _robots) in FLOORS.items():
    SCENARIOS.add(
        f"warehouse-{_size}-v0",
        Scenario(f"warehouse-{_size}-v0", functools.partial(make, _size), _robots, "pibt"),
        f"{_robots} robots bring goods from shelves to stations, without end",
        "warehouse",
    )

SCENARIOS.add(
    "warehouse-map-v0",
    Scenario("warehouse-map-v0", make_map, 32, "pibt", files=("map",)),
    "32 robots and orders drawn on a map, of scattered obstacles by default; --map FILE takes others",
    "warehouse",
)
SCENARIOS.add(
    "warehouse-problem-v0",
    Scenario("warehouse-problem-v0", make_problem, 32, "pibt", files=("problem",)),
    "32 robots that turn, on the small floor; --problem FILE takes one of the League of Robot Runners",
    "warehouse",
)
