"""The warehouse scenarios: floors of three sizes."""

import functools

from jaxmas.environments.warehouse.grid import generated
from jaxmas.environments.warehouse.params import WarehouseParams, warehouse_params
from jaxmas.environments.warehouse.warehouse import Warehouse
from jaxmas.errors import refuse
from jaxmas.registry import SCENARIOS, Scenario

REVEALED = 1.5
"""Open orders per robot."""
FLOORS = {"small": (4, 4, 8, 32), "medium": (8, 8, 16, 128), "large": (16, 16, 32, 512)}
"""Blocks of shelves down and across, stations, and robots."""


@functools.cache
def floor(size: str) -> WarehouseParams:
    """Return the numbers of a floor; its distances are measured once."""
    down, across, stations, _ = FLOORS[size]
    return warehouse_params(generated((down, across), stations=stations))


def make(size: str, num_agents: int, *, coordination_interval: int = 8) -> tuple[Warehouse, WarehouseParams]:
    """Return a floor with so many robots."""
    params = floor(size)
    most = min(1024, len(params.place) // 2)
    refuse(num_agents > most, f"num_agents is {num_agents}; warehouse-{size}-v0 has room for {most}")
    orders = max(2, round(REVEALED * num_agents))
    return Warehouse(num_agents, orders, len(params.place), coordination_interval=coordination_interval), params


for _size, (_, _, _, _robots) in FLOORS.items():
    SCENARIOS.add(
        f"warehouse-{_size}-v0",
        Scenario(f"warehouse-{_size}-v0", functools.partial(make, _size), _robots, "pibt"),
        f"{_robots} robots bring goods from shelves to stations, without end",
        "warehouse",
    )
