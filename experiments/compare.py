"""Compare meta-policies on the same test queries: every hand-crafted strategy, and the runs that are named.

``jaxmas compare SCENARIO [--policy RUN …]`` is this as a command; ``jaxmas evaluate`` plays one policy the same way.
"""

import csv
import dataclasses
import io
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import jaxmas
from jaxmas import anchors, evaluation, plots, structures
from jaxmas.catalog import EXECUTORS, SCENARIOS, STRATEGIES, TEMPLATES
from jaxmas.checkpoints import atomic_write_json, atomic_write_text
from jaxmas.errors import JaxmasError, did_you_mean, refuse
from jaxmas.evaluation import Outcomes
from jaxmas.headroom import World
from jaxmas.policies import RandomPolicy, TemplatePolicy
from jaxmas.runs import LoadedPolicy, checksums, load_executor, load_policy
from jaxmas.statistics import Estimate, hypervolume, paired_difference

Advance = Callable[[int], None]


@dataclasses.dataclass(frozen=True)
class Setting:
    """A scenario with its sizes and its executor: what results are comparable within."""

    scenario: str
    num_agents: int | None = None
    coordination_interval: int | None = None
    executor: str | None = None
    files: Mapping[str, Path] = dataclasses.field(default_factory=dict, hash=False)
    """What the scenario is made of, by the names of its file options."""

    def build(self) -> World:
        """Return the world; anything unknown or impossible is one clear error."""
        sizes = {"num_agents": self.num_agents, "coordination_interval": self.coordination_interval}
        env, params = jaxmas.make(self.scenario, **sizes, **self.files)
        return World(env, params, *load_executor(self.executor_name, env, params))

    @property
    def executor_name(self) -> str:
        """Return the executor's name, or the run that trained it; the scenario's own by default."""
        name = self.executor or SCENARIOS[self.scenario].executor
        known = EXECUTORS.names(SCENARIOS.entry(self.scenario).family)
        unknown = name not in known and not Path(name).is_dir()
        refuse(unknown, f"unknown executor {name!r}; {did_you_mean(name, known)}, or name the directory of a run")
        return name

    def policy(self, spec: str, world: World) -> LoadedPolicy:
        """Return the policy behind ``strategy:NAME`` or a run directory.

        It brings the executor that it was trained with, unless another one was asked for.
        """
        policy = policy_of(spec, world)
        return policy if self.executor is None else dataclasses.replace(policy, executor=None)

    def score(self, world: World, reward: float) -> float | None:
        """Return the coordination score, or None where no anchors hold."""
        return anchors.coordination_score(self.scenario, world.env, world.params, self.executor_name, reward)

    def describe(self, world: World) -> dict[str, Any]:
        """Return what decides the results, for a results file."""
        return {
            "scenario": self.scenario,
            "num_agents": world.env.num_agents,
            "coordination_interval": world.env.coordination_interval,
            "executor": self.executor_name,
            "files": checksums(self.files),
            "params": anchors.params_hash(world.params),
        }


def policy_of(spec: str, world: World) -> LoadedPolicy:
    """Return the policy behind ``strategy:NAME`` or a run directory."""
    known = STRATEGIES.names(world.env.family)
    name = spec.removeprefix("strategy:")
    if spec == name or name in known:
        return load_policy(spec, world.env, world.params)
    raise JaxmasError(f"unknown strategy {name!r}; {did_you_mean(name, known)}")


def strategies_of(world: World) -> list[LoadedPolicy]:
    """Return every hand-crafted strategy, the random one included."""
    return [policy_of(f"strategy:{name}", world) for name in STRATEGIES.names(world.env.family)]


def play(
    world: World, policy: LoadedPolicy, keys: Any, advance: Advance = lambda episodes: None, *, replicates: int = 1
) -> Outcomes:
    """Play every query, once or more.

    A strategy that is one row of the templates is played with the row as a number: all of them share one program.
    """
    executor = policy.executor or (world.executor, world.executor_params)
    arguments = (world.env, world.params, *_shared(world, policy), *executor)
    return evaluation.evaluate(*arguments, keys, replicates=replicates, advance=advance)


def _shared(world: World, policy: LoadedPolicy) -> tuple[Any, Any]:
    """Return a policy and its parameters, such that all rows of the templates are one program."""
    meta, meta_params = policy.meta, policy.meta_params
    if isinstance(meta, TemplatePolicy) and meta.row is not None:
        return TemplatePolicy(world.env), TEMPLATES[world.env.family].row(meta.row)
    return meta, meta_params


def designs(world: World, policies: Mapping[str, LoadedPolicy], keys: Any) -> dict[str, Any]:
    """Return each policy's histogram of plan structures and team sizes."""
    return {
        name: structures.histogram(world.env, world.params, *_shared(world, policy), keys)
        for name, policy in policies.items()
    }


COST_WEIGHTS = (0.5, 1.0, 2.0)
"""Rankings are given with the cost weighing this many times as much as in the scenario."""


def tradeoffs(world: World, result: "Comparison") -> dict[str, Any]:
    """Return every method's reward at three cost weights, and what the methods dominate in success against cost.

    The hypervolume is the area in success × cost that some method dominates, up to the cost of the dearest one;
    ``without_learned`` leaves the learned policies out.
    """
    rows = result.summaries
    weights = getattr(world.params, "reward", None)
    if weights is None:
        return {}
    weight = float(weights.cost)
    at = {
        f"{factor:g}": {
            name: row["reward"]["mean"] + (1 - factor) * weight * row["cost"]["mean"] for name, row in rows.items()
        }
        for factor in COST_WEIGHTS
    }
    dearest = max(row["cost"]["mean"] for row in rows.values())

    def volume(names: list[str]) -> float:
        cost, success = ([rows[name][key]["mean"] for name in names] for key in ("cost", "success"))
        return hypervolume(cost, success, dearest * 1.01)

    others = [name for name in rows if result.kinds[name] != "learned"]
    return {
        "cost_weight": weight,
        "reward_at_cost_weight": at,
        "ranking_at_cost_weight": {
            factor: sorted(means, key=lambda name: -means[name]) for factor, means in at.items()
        },
        "hypervolume": {"all": volume(list(rows)), "without_learned": volume(others)},
    }


def summary(setting: Setting, world: World, outcomes: Outcomes, *, scored: bool = True) -> dict[str, Any]:
    """Return every metric's mean and interval, and the score, which holds for the setting's own executor only."""
    estimates = evaluation.summarise(outcomes)
    rows = {name: estimate.to_json() for name, estimate in estimates.items()}
    return {**rows, "score": setting.score(world, estimates["reward"].mean) if scored else None}


def evaluate(setting: Setting, spec: str, episodes: int, seed: int, advance: Advance) -> dict[str, Any]:
    """Play one policy on test queries."""
    world = setting.build()
    policy = setting.policy(spec, world)
    outcomes = play(world, policy, evaluation.query_keys("test", episodes, seed), advance)
    described = {"policy": spec, "name": policy.name, "episodes": episodes, "seed": seed}
    own = {} if policy.executor is None else {"executor": f"executors of {Path(spec).name}"}
    return setting.describe(world) | described | own | summary(setting, world, outcomes, scored=not own)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Outcomes of several methods on the same queries."""

    outcomes: Mapping[str, Outcomes]
    kinds: Mapping[str, str]
    """``strategy``, ``random``, ``learned`` or ``rule``, by method."""
    summaries: Mapping[str, dict[str, Any]]

    @property
    def best_strategy(self) -> str:
        """Return the strategy that earned most on these queries, a choice that favours the strategies."""
        names = [name for name, kind in self.kinds.items() if kind == "strategy"]
        return self.best(names or [name for name, kind in self.kinds.items() if kind == "random"])

    def best(self, names: Iterable[str]) -> str:
        """Return which of the methods earned most."""
        return max(names, key=lambda name: self.summaries[name]["reward"]["mean"])

    def difference(self, a: str, b: str) -> dict[str, Any]:
        """Return how much more reward ``a`` earns than ``b``, query by query."""
        return paired_difference(self.outcomes[a]["reward"], self.outcomes[b]["reward"]).to_json()

    def ranked(self) -> list[str]:
        """Return the methods, those that earn most first."""
        return sorted(self.summaries, key=lambda name: -self.summaries[name]["reward"]["mean"])

    def methods(self) -> dict[str, plots.Method]:
        """Return what figures show of every method."""
        kinds = {name: {"strategy": "other"}.get(kind, kind) for name, kind in self.kinds.items()}
        kinds[self.best_strategy] = "best"
        return {
            name: plots.Method(name, kinds[name], *(_estimate(row[key]) for key in ("reward", "success", "cost")))
            for name, row in self.summaries.items()
        }


def comparison(
    setting: Setting,
    world: World,
    played: Mapping[str, Outcomes],
    kinds: Mapping[str, str],
    own_executor: Collection[str] = (),
) -> Comparison:
    """Summarise what was played; methods with executors of their own get no score."""
    summaries = {
        name: summary(setting, world, outcomes, scored=name not in own_executor) for name, outcomes in played.items()
    }
    return Comparison(played, kinds, summaries)


def compare(
    setting: Setting, specs: tuple[str, ...], episodes: int, seed: int, out: Path, advance: Advance
) -> dict[str, Any]:
    """Play all strategies and the named policies on the same test queries; write table and figures."""
    world = setting.build()
    named = [setting.policy(spec, world) for spec in specs]
    policies = {policy.name: policy for policy in strategies_of(world)}
    policies |= {_distinct(policy, spec, policies): policy for spec, policy in zip(specs, named, strict=True)}
    keys = evaluation.query_keys("test", episodes, seed)
    played = {name: play(world, policy, keys, advance) for name, policy in policies.items()}
    own = [name for name, policy in policies.items() if policy.executor is not None]
    result = comparison(setting, world, played, {name: kind_of(policy) for name, policy in policies.items()}, own)
    best = result.best_strategy
    rows = {
        name: {
            "kind": result.kinds[name],
            **result.summaries[name],
            "over_best_strategy": None if name == best else result.difference(name, best),
        }
        for name in result.ranked()
    }
    described = {"episodes": episodes, "seed": seed, "best_strategy": best, "methods": rows}
    extra = {"tradeoffs": tradeoffs(world, result), "designs": designs(world, policies, keys)}
    table = setting.describe(world) | described | extra | {"out": str(out)}
    _write(table, result, out)
    return table


def num_methods(scenario: str, specs: tuple[str, ...]) -> int:
    """Return how many methods a comparison plays."""
    return len(STRATEGIES.names(SCENARIOS.entry(scenario).family)) + len(specs)


def kind_of(policy: LoadedPolicy) -> str:
    """Return the kind of a policy, which decides its colour."""
    if policy.meta_params is not None or policy.executor is not None:
        return "learned"
    return "random" if isinstance(policy.meta, RandomPolicy) else "strategy"


def _distinct(policy: LoadedPolicy, spec: str, known: Mapping[str, LoadedPolicy]) -> str:
    """Return a name that no other method has; a strategy that is named again stays one method."""
    return policy.name if kind_of(policy) != "learned" or policy.name not in known else f"{policy.name} {spec}"


def _estimate(row: Mapping[str, Any]) -> Estimate:
    low, high = row["ci95"]
    return Estimate(row["mean"], (low, high))


def _write(table: dict[str, Any], result: Comparison, out: Path) -> None:
    """Write the table as JSON and CSV, and the figures; all are complete before the first file appears."""
    methods = list(result.methods().values())
    figures = {"rewards": plots.rewards(methods), "pareto": plots.success_against_cost(methods)}
    text = to_csv(table["methods"])
    for name, figure in figures.items():
        plots.save_png(figure, out / f"{name}.png")
    atomic_write_text(out / "compare.csv", text)
    atomic_write_json(out / "compare.json", table)


def to_csv(methods: Mapping[str, Mapping[str, Any]]) -> str:
    """Return one line per method, with mean, low and high of every metric."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    rows = [{"method": name, **_flat(row)} for name, row in methods.items()]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    writer.writerow(columns)
    writer.writerows([row.get(column, "") for column in columns] for row in rows)
    return buffer.getvalue()


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            flat |= {name: value["mean"], f"{name}_low": value["ci95"][0], f"{name}_high": value["ci95"][1]}
        elif name != "over_best_strategy":
            flat[name] = "" if value is None else value
    return flat
