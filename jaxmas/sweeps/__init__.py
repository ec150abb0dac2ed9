"""Sweeps: many seeds and settings of one algorithm in few compiled programs, each trial a run like any other.

    spec (TOML) → plan (trials, programs) → an engine runs the programs → a result per trial → tables

A folder holds ``sweep.json`` (the plan), ``trials/`` (run directories with their results), ``programs/`` (checkpoints
of what is under way), and the tables, which are made of the trials' results and lost without harm.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxmas.errors import JaxmasError, refuse
from jaxmas.sweeps import engines
from jaxmas.sweeps.plan import FILE, Plan, make_plan, read_plan, write_plan
from jaxmas.sweeps.programs import updates_of
from jaxmas.sweeps.results import is_finished, read_results, write_result, write_tables
from jaxmas.sweeps.spec import Spec, read

__all__ = ["Plan", "Spec", "open_sweep", "read", "run", "total_updates"]


def open_sweep(spec: Spec, out: Path, resume: bool = False, engine: str = "local") -> Plan:
    """Return the plan: a new one in an empty place, with ``resume`` the one that the sweep was begun with.

    Raises:
        JaxmasError: where the folder holds something else, or a sweep and ``resume`` is not set,
            or where the engine is not installed.
    """
    engines.check(engine)
    if not (out / FILE).exists():
        taken = out.exists() and not (out.is_dir() and not any(out.iterdir()))
        refuse(taken, f"{out} exists and is no sweep; choose another --out")
        plan = make_plan(spec)
        write_plan(out, plan)
        return plan
    refuse(not resume, f"{out} already holds a sweep; go on with it by --resume or choose another --out")
    plan = read_plan(out)
    for name, now in spec.to_json().items():
        was = plan.spec.to_json()[name]
        refuse(name != "slurm" and was != now, f"{out} was begun with {name} {was}, not {now}; resume it as it was")
    return plan


def total_updates(plan: Plan, out: Path) -> int:
    """Return the updates of all programs that are not finished."""
    return sum(updates_of(plan, plan.programs[folder.name]) for folder in _unfinished(plan, out))


def run(
    plan: Plan, out: Path, *, engine: str = "local", workers: int = 1, advance: Callable[[float], None] = lambda _: None
) -> dict[str, Any]:
    """Run what is not finished, and return the table; it is written anew as every program ends.

    Raises:
        JaxmasError: where a program ended before it was done, after all others did.
    """
    out = out.resolve()
    for name, why in plan.refused.items():
        write_result(out, plan.trials[name], error=why)
    rows = write_tables(out, plan)
    broken: list[str] = []
    folders = _unfinished(plan, out)
    in_this_process = engine == "local" and workers == 1
    for folder, error in engines.ENGINES[engine](folders, workers, advance) if folders else ():
        if error is not None:
            broken.append(f"{folder.name} by {type(error).__name__}: {error}")
        if not in_this_process:
            advance(updates_of(plan, plan.programs[folder.name]))
        rows = write_tables(out, plan)
    if broken:
        raise JaxmasError(f"{len(broken)} programs ended early, {broken[0]}; mend it, and go on by --resume")
    results = read_results(out, plan)
    return {
        "trials": len(results),
        "failed": sum(result["error"] is not None for result in results),
        "programs": len(plan.programs),
        "seconds": sum(result["seconds"] for result in results),
        "rows": rows,
    }


def _unfinished(plan: Plan, out: Path) -> list[Path]:
    """Return the folders of the programs with trials that have no result."""
    return [
        out / "programs" / name
        for name, program in plan.programs.items()
        if not all(is_finished(out, plan.trials[trial]) for trial in program.trials)
    ]
