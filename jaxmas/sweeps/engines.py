"""Engines: where the programs of a sweep run. Each takes their folders, and yields each one as it ends."""

import concurrent.futures
import importlib
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from jaxmas.errors import JaxmasError
from jaxmas.sweeps.plan import read_plan
from jaxmas.sweeps.programs import Advance, run_program

Ended: TypeAlias = Iterator[tuple[Path, Exception | None]]
"""Programs that ended, with what ended them before they were done; their last checkpoints stay."""


def local(folders: Sequence[Path], workers: int, advance: Advance) -> Ended:
    """Run programs here: with one worker in this process, with several in as many others."""
    if workers == 1:
        for folder in folders:
            yield folder, _error_of(run_program, folder, advance)
        return
    # Not forked: JAX's threads are running already.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context) as pool:
        jobs = {pool.submit(run_program, folder): folder for folder in folders}
        for job in concurrent.futures.as_completed(jobs):
            yield jobs[job], _error_of(job.result)


def ray(folders: Sequence[Path], workers: int, advance: Advance) -> Ended:
    """Run programs as tasks of Ray: on the cluster that ``RAY_ADDRESS`` names, else on a small one of this machine."""
    ray = _optional("ray")
    ray.init(
        **{} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers, "include_dashboard": False},
        ignore_reinit_error=True,
        log_to_driver=False,
    )
    try:
        # Ray hides accelerators from tasks that do not ask for one.
        task = ray.remote(run_program).options(num_gpus=1 if ray.cluster_resources().get("GPU") else 0)
        jobs = {task.remote(folder): folder for folder in folders}
        while jobs:
            (job,), _ = ray.wait(list(jobs))
            yield jobs.pop(job), _error_of(ray.get, job)
    finally:
        ray.shutdown()


def slurm(folders: Sequence[Path], workers: int, advance: Advance) -> Ended:
    """Run programs as an array of Slurm jobs, as many at a time as there are workers, with the spec's parameters."""
    submitit = _optional("submitit", "slurm")
    out = folders[0].parent.parent
    options = dict(read_plan(out).spec.slurm)
    try:
        executor = submitit.AutoExecutor(out / "slurm", cluster=options.pop("cluster", "slurm"))
        executor.update_parameters(slurm_array_parallelism=workers, **options)
        jobs = dict(zip(executor.map_array(run_program, folders), folders, strict=True))
    except (RuntimeError, NameError, TypeError, ValueError) as error:
        raise JaxmasError(f"Slurm takes no jobs: {error}; mend [slurm], or use --engine local") from error
    while jobs:
        ended = [job for job in jobs if job.done()]
        for job in ended:
            yield jobs.pop(job), _error_of(job.result)
        time.sleep(0 if ended else 1)


ENGINES: dict[str, Callable[[Sequence[Path], int, Advance], Ended]] = {"local": local, "ray": ray, "slurm": slurm}


def _error_of(run: Callable[..., Any], *arguments: Any) -> Exception | None:
    """Return what a call raises."""
    try:
        run(*arguments)
    except Exception as error:  # other programs go on, whatever it is
        return error
    return None


def _optional(package: str, extra: str = "") -> Any:
    """Import a package that jaxmas does without, or say how to get it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        extra = extra or package
        raise JaxmasError(f"--engine {extra} needs {package}: pip install 'jaxmas[{extra}]'") from error


def check(engine: str) -> None:
    """Refuse an engine whose package is missing, before any work is done."""
    for name, package in (("ray", "ray"), ("slurm", "submitit")):
        if engine == name:
            _optional(package, name)
