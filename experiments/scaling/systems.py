"""What the study of scaling compares, at which sizes.

Expected before the run:

- success of every method falls with the number of agents on ``workflow-crowd-v0``, as every answer counts, towards the
  eighth that a guess earns; orders per robot fall in the warehouse, as robots are in each other's way; a logistic fits
  the former better, as the published law of collaborative scaling has it (MacNet), a power law the latter;
- meta-skill that is trained at a size earns more than the best strategy there up to 128 agents, and no more than it
  from 512 on, where nearly all plans fail and equal plays teach less;
- what was trained at 16 agents earns within 0.05 of what was trained at 32 and 64, and falls behind beyond;
- designer and executors that learn together pass the designer over the same frozen executors at 16 and 64 agents;
- compile time is flat (at most twice from 8 to 1,024 agents), the time of an agent-step grows at most threefold;
- at 128 agents lost plans cost more than lost messages of the same chance, a designer that sees a third of the query
  wrongly loses less than a tenth of its success, and what it sees of the progress may be late without loss.

Laws were to be fitted to the success of a crowd, and are to its reward since the strategies' results were seen: the
best by reward votes at some sizes and not at others, and success goes up and down with that choice. Strategies are
tuned at each size since these results showed that only those of 16 agents were, to another scenario of that shape.
"""

import dataclasses
from typing import ClassVar

from jaxmas.experiments import study
from jaxmas.experiments.study import Part, Study, System
from jaxmas.experiments.warehouse.learning import ORDERS

CROWD = {
    8: "e49f8c95412e96d2",
    16: "1d15538b662fd573",
    32: "d2ba4081a08c53bf",
    64: "1b67707c0cede16f",
    128: "a0f12548b60b9abc",
    256: "6ac3639744b6199b",
    512: "7372f384ab9161b9",
    1024: "7f884a321f69cf88",
}
"""Hash of the scenario's numbers, by the number of agents."""
FLOORS = {"small": (8, 16, 32), "medium": (64, 128), "large": (256, 512, 1024)}
FLOOR_PARAMS = {"small": "a64cacae20c8e5ad", "medium": "c729ba6c11a26ca4", "large": "20b148b2eb2b6c40"}
TRAINED_AT = 16
"""Agents that the policy was trained with which is played at every size."""
DESIGNED = "meta-skill"
RANDOM, BEST, MOVED = "random", "best strategy", f"{DESIGNED} trained at {TRAINED_AT}"
"""How the tables call what is played at every size."""
SWEPT_AT = 128
"""Agents of the sweeps."""
REPLANS, REPLAN = "meta-skill, four plans", 6
"""The designer that plans anew by what it sees of the progress, every so many steps."""
DESIGNER = {"queries": 16, "plans": 8}
"""128 plays an update, as with executors that learn; with the algorithm's own 1,152 equal plays were four updates."""
ASSIGNMENT = {**ORDERS, "plans": 16, "queries": 2}
TOGETHER = {
    "mode": "coupled", "space": "template", "queries": 8, "designs": 4, "executions": 4, "warm_start": 0,
    "capacity": 128,
}  # fmt: skip
TOGETHER_AT = (16, 64)
"""Agents among whom executors learn as well; at every size that would double the time of the study."""
ROBOTS_AT = (8, 16, 32, 64)
"""Robots that assignment is learned with; with 128 it would take as long as with all of these, and so on."""


def crowd_systems(num_agents: int) -> dict[str, System]:
    """Return the systems of a crowd; executors that learn begin as networks, and so does what they are held against."""
    systems = {"meta-skill": System("meta-skill", DESIGNER, "scripted")}
    if num_agents in TOGETHER_AT:
        systems["meta-skill, frozen-90"] = System("meta-skill", DESIGNER)
        systems["metaagent-x, from frozen-90"] = System("metaagent-x", TOGETHER)
    if num_agents == SWEPT_AT:
        systems[REPLANS] = System("meta-skill", DESIGNER, "scripted", REPLAN)
    return systems


CROWDS = {
    f"crowd-{agents}": Part("workflow-crowd-v0", params, crowd_systems(agents), plays=5_120, seeds=3, num_agents=agents)
    for agents, params in CROWD.items()
}
WAREHOUSES = {
    f"warehouse-{robots}": Part(
        f"warehouse-{floor}-v0",
        FLOOR_PARAMS[floor],
        {"meta-skill": System("meta-skill", ASSIGNMENT, "pibt")} if robots in ROBOTS_AT else {},
        plays=1_280,
        seeds=3,
        num_agents=robots,
    )
    for floor, sizes in FLOORS.items()
    for robots in sizes
}
FAMILIES = {"crowd": CROWDS, "warehouse": WAREHOUSES}
EXECUTORS = {"crowd": "scripted", "warehouse": "pibt"}
"""Who acts for all methods but those that say otherwise; scores are among methods with these."""
UNITS = {"crowd": "reward", "warehouse": "orders per robot in 256 steps"}
"""What the reward is, of which curves over the number of agents are drawn, and to which laws are fitted."""
OUTCOMES = ("reward", "cost", "messages", "throughput")
"""What is kept of every query, besides its success, where the environment counts it."""
SMALL = {"crowd-16": ("meta-skill",), "warehouse-128": ()}
STUDY = Study("scaling", {**CROWDS, **WAREHOUSES}, SMALL, OUTCOMES)


@dataclasses.dataclass(frozen=True)
class Settings(study.Settings):
    """Size of the study; its parts are crowd-8 … crowd-1024 and warehouse-8 … warehouse-1024."""

    study: ClassVar[Study] = STUDY
    test: int = 512
    """Test queries of a crowd; a 32nd of them in the warehouse, each a mean over hundreds of orders."""
    workers: int = 1


def names_of(settings: Settings) -> tuple[str, ...]:
    """Return the parts to run."""
    return settings.parts or tuple(SMALL if settings.small else STUDY.parts)


def family_of(name: str) -> str:
    """Return the family of a part."""
    return name.rsplit("-", 1)[0]


def size_of(name: str) -> int:
    """Return the number of agents of a part."""
    return int(name.rsplit("-", 1)[1])


def of_part(name: str, settings: Settings) -> Settings:
    """Return the settings that a part is run with."""
    test = settings.test // (8 if settings.small else 1) // (1 if name in CROWDS else 32)
    return dataclasses.replace(settings, parts=(name,), test=max(2, test))
