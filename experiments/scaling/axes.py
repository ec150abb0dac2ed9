"""What more than a hundred agents do when messages are lost, radios reach less far, or the designer sees less, later.

A crowd's numbers are swept as they stand in its parameters, for the best strategy and the designers trained there; the
robots' radio, for executors that listen, by leaving out what comes from farther away.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmas import evaluation
from jaxmas.environments.warehouse.messages import HEARD, MESSAGE, RADIO
from jaxmas.experiments import compare
from jaxmas.experiments.scaling.measures import best_of, file_of, references, runs_of
from jaxmas.experiments.scaling.systems import BEST, DESIGNED, EXECUTORS, REPLANS, Settings
from jaxmas.experiments.study import Part, estimate, folder, remembered, sizes
from jaxmas.headroom import World
from jaxmas.runs import load_policy
from jaxmas.types import Observation

CROWD: Mapping[str, tuple[float, ...]] = {
    "message_loss": (0.005, 0.0, 0.05, 0.2, 0.5),
    "plan_loss": (0.0, 0.05, 0.2, 0.5),
    "designer_noise": (0.03, 0.0, 0.1, 0.3, 1.0),
    "designer_delay": (0, 1, 2, 4),
}
"""The scenario's own number first."""
LISTENER = "frozen-ippo"
"""Robots that were trained to listen."""
LOSSES = (0.1, 0.0, 0.5, 1.0)
RANGES = (RADIO, 4, 3, 2, 0)
"""Cells that a radio reaches, the scenario's first."""


@dataclasses.dataclass(frozen=True)
class ShortRadio:
    """Robots of some executor who hear no farther than so many cells; its parameters begin with the number.

    Messages are those of the nearest: whoever is beyond would not have taken the place of one nearer.
    """

    executor: Any

    def init(self, num_agents: int) -> Any:
        """Return the executor's carry."""
        return self.executor.init(num_agents)

    def apply(self, params: Any, carry: Any, observation: Observation, mask: Any, key: Any) -> tuple[Any, Any]:
        """Return what the executor does without the messages from beyond."""
        reach, params = params
        own, heard = jnp.split(observation.features, [observation.features.shape[1] - HEARD * MESSAGE], axis=1)
        heard = heard.reshape(len(own), HEARD, MESSAGE)
        near = jnp.sum(jnp.square(heard[:, :, :2] * RADIO), axis=2) <= reach**2 + 1e-3
        heard = jnp.where(near[:, :, None], heard, 0.0).reshape(len(own), -1)
        observation = dataclasses.replace(observation, features=jnp.concatenate([own, heard], axis=1))
        return self.executor.apply(params, carry, observation, mask, key)


def changed(world: World, name: str, value: float) -> World:
    """Return a world with another number of that name."""
    leaf = jnp.asarray(value, getattr(world.params, name).dtype)
    return dataclasses.replace(world, params=dataclasses.replace(world.params, **{name: leaf}))


def swept(worlds: Mapping[Any, World], policies: list[Any], settings: Settings) -> dict[str, Any]:
    """Return reward and success in each world, and what is lost against the first, query by query."""
    keys, found = evaluation.query_keys("test", max(2, settings.test // 2)), {}
    first: dict[str, np.ndarray] = {}
    for value, world in worlds.items():
        outcomes = [compare.play(world, policy, keys) for policy in policies]
        rows = {key: np.stack([one[key].astype(float) for one in outcomes]) for key in ("reward", "success")}
        first = first or rows
        found[f"{value:g}"] = {key: estimate(row) for key, row in rows.items()} | {
            f"{key} lost": estimate(first[key] - row) for key, row in rows.items()
        }
    return found


def crowd(name: str, part: Part, settings: Settings) -> None:
    """Sweep a crowd's numbers for the best strategy and whoever has been trained; each sweep is kept by itself."""
    best, known = references(name, part, settings), sizes(part, settings)
    for system in (BEST, DESIGNED, REPLANS):
        runs = [] if system == BEST else runs_of(name, system, settings)
        interval = part.systems[system].coordination_interval if system in part.systems else None
        setting = compare.Setting(part.scenario, part.num_agents, interval, EXECUTORS["crowd"])
        for number, values in CROWD.items():
            file = file_of(name, f"sweep-{number}-{folder(system)}", settings)
            if (runs or system == BEST or file.exists()) and (interval or number != "designer_delay"):

                def measure(setting=setting, system=system, runs=runs, number=number, values=values) -> dict[str, Any]:
                    world = setting.build()
                    policies = [load_policy(str(run), world.env, world.params) for run in runs]
                    policies = policies or [best_of(best, world)]
                    worlds = {value: changed(world, number, value) for value in values}
                    return {"rows": {number: {system: swept(worlds, policies, settings)}}}

                remembered(file, known, measure)


def radio(name: str, part: Part, settings: Settings) -> None:
    """Sweep the loss of messages and the range of radios among robots that listen."""
    best = references(name, part, settings)

    def measure() -> dict[str, Any]:
        world = compare.Setting(part.scenario, part.num_agents, executor=LISTENER).build()
        policy = best_of(best, world)
        losses = {loss: changed(world, "message_loss", loss) for loss in LOSSES}
        short = dataclasses.replace(world, executor=ShortRadio(world.executor))
        ranges = {
            cells: dataclasses.replace(short, executor_params=(jnp.float32(cells), world.executor_params))
            for cells in RANGES
        }
        system = f"{BEST}, {LISTENER}"
        sweeps: dict[str, Mapping[Any, World]] = {"message_loss": losses, "radio range": ranges}
        return {"rows": {number: {system: swept(worlds, [policy], settings)} for number, worlds in sweeps.items()}}

    remembered(file_of(name, "sweep-radio", settings), sizes(part, settings), measure)
