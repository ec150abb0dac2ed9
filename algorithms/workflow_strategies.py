"""The hand-crafted workflow strategies.

Each is a named family of at most twelve rows of the plan grammar. Which row a strategy uses is tuned on validation
queries (``python -m jaxmas.experiments.freeze``) and recorded with the scenario's anchors.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any, ClassVar

from jaxmas.algorithms import workflow_plans as grammar
from jaxmas.algorithms.workflow_plans import ROLES, TASKS, TIERS, TOPOLOGIES, Template
from jaxmas.environments.workflow.params import role_names
from jaxmas.policies import TemplatePolicy
from jaxmas.registry import STRATEGIES, TEMPLATES
from jaxmas.types import Environment, MetaPolicy

Row = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Templates:
    """The rows of the template space and how to build and name one."""

    rows: tuple[Row, ...]
    build: Callable[..., Any]
    parts: ClassVar[dict[str, tuple[str, ...]]] = grammar.PARTS
    modes: ClassVar[dict[str, Row]] = grammar.MODES
    team: ClassVar[Row] = grammar.TEAM

    def single(self, row: Row) -> bool:
        """Return whether a row is one agent."""
        return row[1] == 1 and row[4] == 0

    def constant(self, row: Row) -> bool:
        """Return whether a row is one plan for all queries: free tasks, and roles that do not follow the skills."""
        return row[4] == 0 and row[2] in (0, 3)

    def names(self, env: Any) -> dict[str, tuple[str, ...]]:
        """Return what the values of plan fields are called."""
        tiers = TIERS[:3] if env.num_tiers == 3 else ()
        return {"role": role_names(env.num_skills), "tier": tiers}

    def table(self) -> Template:
        """Return all rows as a tree of columns."""
        return self.columns(self.rows)

    def columns(self, rows: tuple[Row, ...]) -> Template:
        """Return some rows as a tree of columns."""
        return grammar.as_table(rows)

    def row(self, row: Row) -> Template:
        """Return one row as a tree of scalars."""
        return grammar.as_row(row)

    def describe(self, row: Row) -> str:
        """Return a row in words."""
        return grammar.describe(grammar.as_row(row))


TEMPLATES.add("workflow", Templates(grammar.template_rows(), grammar.build), "workflow plan grammar", "workflow")


def _rows(
    topology: str,
    sizes: tuple[int, ...],
    roles: tuple[str, ...] = ("generalist", "skilled"),
    tiers: tuple[str, ...] = ("weak", "middle", "strong"),
    votes: tuple[tuple[int, int], ...] = ((1, 1),),
    tasks: str = "free",
) -> tuple[Row, ...]:
    numbers = itertools.product(
        (TOPOLOGIES.index(topology),),
        sizes,
        (ROLES.index(name) for name in roles),
        (TIERS.index(name) for name in tiers),
        (TASKS.index(tasks),),
        votes,
    )
    rows = tuple((a, b, c, d, e, *f) for a, b, c, d, e, f in numbers)
    if len(rows) > MAX_TRIALS:
        raise ValueError(f"a strategy has at most {MAX_TRIALS} rows to be tuned over, not {len(rows)}")
    return rows


MAX_TRIALS = 12
TUNABLE: dict[str, tuple[Row, ...]] = {}
"""The rows that each strategy is tuned over; the first is its default."""


def _add(name: str, summary: str, rows: tuple[Row, ...]) -> None:
    TUNABLE[name] = rows
    STRATEGIES.add(name, functools.partial(_tuned, name), summary, "workflow")


def _tuned(name: str, env: Environment, params: Any = None) -> MetaPolicy:
    from jaxmas.anchors import tuned_row

    return TemplatePolicy(env, tuned_row(name, env, params) or TUNABLE[name][0])


for _tier in ("weak", "middle", "strong"):
    _add(
        f"single-{_tier}",
        f"one {_tier} agent, one vote per subtask",
        _rows("copies", (1,), tiers=(_tier,), votes=((1, 1),)),
    )
_add(
    "single-resampling",
    "one agent that answers every subtask several times",
    _rows("copies", (1,), votes=((3, 3), (5, 5))),
)
_add(
    "self-consistency",
    "independent copies, the reporter takes the plurality",
    _rows("copies", (3, 8), tiers=("middle", "weak", "strong"), votes=((1, 3), (3, 3)), roles=("skilled",)),
)
_add("chain", "each member reads the next", _rows("chain", (2, 4), tiers=("middle", "weak", "strong")))
_add("star", "a hub reads all and all read the hub", _rows("star", (4, 8), tiers=("middle", "weak", "strong")))
_add("tree", "a binary tree of readers under the reporter", _rows("tree", (3, 7), tiers=("middle", "weak", "strong")))
_add("layered", "layers, each reading the one before it", _rows("layered", (5, 9), tiers=("middle", "weak", "strong")))
_add("mesh", "everyone reads everyone: a debate", _rows("mesh", (3, 8), tiers=("middle", "weak", "strong")))
_add("random-graph", "a sparse random graph of readers", _rows("random", (4, 8), tiers=("middle", "weak", "strong")))
_add(
    "reflection",
    "a worker and a critic that read each other",
    _rows("mesh", (2,), ("critic",), ("middle", "weak", "strong", "mixed"), ((1, 1), (2, 2), (3, 3))),
)
_add(
    "roles-by-skill",
    "one specialist per subtask, who reads those at its parents",
    _rows("graph", (1,), ("skilled",), ("middle", "weak", "strong", "hard"), ((1, 1), (1, 3), (5, 5)), "assigned"),
)
_add(
    "roles-by-skill-voting",
    "two or three specialists per subtask, who share its votes and read those at its parents",
    _rows("graph", (2, 3), ("skilled",), ("middle", "weak", "hard"), ((3, 3), (5, 5)), "assigned"),
)
_add(
    "escalation",
    "weak members first, a strong critic where they disagree",
    _rows("mesh", (2, 3, 4), ("critic",), ("escalate",), ((1, 1), (2, 2), (1, 3), (3, 3))),
)
