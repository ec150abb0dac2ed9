"""A program at work: what every engine runs, in a process of its own or not.

The state of all its trials, stacked, is the program's checkpoint. A trial's log grows chunk by chunk; at the end it
gets a checkpoint of its own, and is a run like any other.
"""

import dataclasses
import functools
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmas import training
from jaxmas.checkpoints import Checkpoints
from jaxmas.errors import JaxmasError
from jaxmas.evaluation import query_keys
from jaxmas.experiments.compare import play, summary
from jaxmas.headroom import World
from jaxmas.runs import check_world, read_record, starting_policies, trained_policy, write_record
from jaxmas.sweeps.batches import first_states, run_states, side_by_side
from jaxmas.sweeps.plan import Plan, Program, Trial, read_plan
from jaxmas.sweeps.results import folder_of, is_finished, write_result

Advance = Callable[[float], None]
"""Called with the updates done since the last call, each trial's counted."""


def run_program(folder: Path, advance: Advance = lambda updates: None) -> None:
    """Train and evaluate the trials of ``SWEEP/programs/NAME`` that are not finished, from its last checkpoint on.

    A trial that fails is recorded with its error; the others go on.
    """
    job = _Job(folder, read_plan(folder.parent.parent))
    if job.unfinished:
        job.run(advance)
    shutil.rmtree(folder, ignore_errors=True)


def updates_of(plan: Plan, program: Program) -> int:
    """Return the updates of a program, each trial's counted."""
    return len(program.trials) * plan.spec.config(plan.trials[program.trials[0]].settings).updates


@dataclasses.dataclass(frozen=True)
class _Job:
    """One program of a sweep."""

    folder: Path
    plan: Plan

    @property
    def out(self) -> Path:
        return self.folder.parent.parent

    @property
    def program(self) -> Program:
        return self.plan.programs[self.folder.name]

    @property
    def trials(self) -> list[Trial]:
        return [self.plan.trials[name] for name in self.program.trials]

    @property
    def unfinished(self) -> list[tuple[int, Trial]]:
        """Return the trials without a result, each with its place in the program."""
        return [(index, trial) for index, trial in enumerate(self.trials) if not is_finished(self.out, trial)]

    def run(self, advance: Advance) -> None:
        """Train all trials, then evaluate one after another."""
        world = self.plan.spec.setting.build()
        states = self._train(world, advance)
        for index, trial in self.unfinished:
            self._finish(trial, world, jax.tree.map(lambda leaf, index=index: leaf[index], states))

    def _train(self, world: World, advance: Advance) -> Any:
        """Return the states of all trials after the last update, stacked."""
        spec, trials = self.plan.spec, self.trials
        # The program takes what is traced from ``values``; here it stands as it is in the first trial.
        config = spec.config(trials[0].settings)
        start = starting_policies(config, spec.setting.executor_name, world.env, world.params)
        values = {name: jnp.array([trial.settings[name] for trial in trials]) for name in self.program.traced}
        keys = jnp.stack([jax.random.key(trial.seed) for trial in trials])
        common, together = (config, world.env, world.params, start), side_by_side()
        fresh = functools.partial(first_states, *common, keys, values, together)
        checkpoints = Checkpoints(self.folder)
        done, states = checkpoints.restore_latest(jax.eval_shape(fresh)) or (0, fresh())
        self._open(world, done)
        advance(done * len(trials))
        while done < config.updates and self.unfinished:
            began = time.perf_counter()
            count = min(training.CHUNK, config.updates - done)
            states, logs = run_states(*common, states, values, count, training.CHUNK, together)
            done += count
            logs = {name: np.asarray(log[:, :count]) for name, log in logs.items()}
            self._log(done, states.params, logs, time.perf_counter() - began)
            # After the logs: a resumed program drops lines beyond its checkpoint, and so none is ever lost.
            checkpoints.save(done, states)
            advance(count * len(trials))
        return states

    def _open(self, world: World, done: int) -> None:
        """Make every trial's directory as it was after so many updates."""
        spec = self.plan.spec
        name, files = spec.setting.executor_name, spec.setting.files
        for _, trial in self.unfinished:
            folder, config = folder_of(self.out, trial), spec.config(trial.settings)
            folder.mkdir(parents=True, exist_ok=True)
            if (folder / "config.json").exists():
                check_world(read_record(folder), world.params)
            else:
                arguments = spec.scenario, spec.algorithm, config, world.env, world.params, name, trial.seed, files
                write_record(folder, training.record_of(*arguments))
            training.truncate_log(folder / "log.jsonl", done)

    def _log(self, done: int, params: Any, logs: dict[str, np.ndarray], seconds: float) -> None:
        """Append a line to the log of every trial; one whose numbers are none any more is finished by that."""
        weights = jax.tree.map(np.asarray, params)
        for index, trial in self.unfinished:
            own_weights, own_logs = jax.tree.map(lambda leaf, index=index: leaf[index], (weights, logs))
            config = self.plan.spec.config(trial.settings)
            try:
                row = training.log_row(config, done, own_weights, own_logs, seconds / len(self.trials))
            except JaxmasError as error:
                write_result(self.out, trial, error=str(error))
            else:
                training.append_row(folder_of(self.out, trial) / "log.jsonl", row)

    def _finish(self, trial: Trial, world: World, state: Any) -> None:
        """Make a trial a run like any other, and play its policy on test queries."""
        spec, folder = self.plan.spec, folder_of(self.out, trial)
        Checkpoints(folder).save(int(state.update), state)
        began = time.perf_counter()
        policy = trained_policy(trial.name, spec.config(trial.settings), state, world.env, world.params)
        outcomes = play(world, policy, query_keys("test", spec.episodes))
        outcome = summary(spec.setting, world, outcomes, scored=policy.executor is None)
        write_result(self.out, trial, outcome=outcome, seconds=time.perf_counter() - began)
