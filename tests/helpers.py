"""Small builders for tests: worlds, plans, hand-made queries, and games played step by step."""

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmas.environments.workflow.params import Reward, WorkflowParams
from jaxmas.environments.workflow.query import MAX_PARENTS, SHAPES, Query, QueryMix
from jaxmas.environments.workflow.scripted import ScriptedExecutor, exact_answer
from jaxmas.environments.workflow.votes import VOCABULARY, pack
from jaxmas.environments.workflow.workflow import Workflow, WorkflowState
from jaxmas.errors import JaxmasError
from jaxmas.plans import Plan, PlanSpace
from jaxmas.rollout import Policies, begin, play_query

ENV = Workflow(num_agents=8, max_subtasks=8, inbox=8, horizon=16, coordination_interval=16)
SKILLS, TIERS = ENV.num_skills, ENV.num_tiers
GENERALIST, CRITIC, AGGREGATOR = SKILLS, SKILLS + 1, SKILLS + 2
PASS = VOCABULARY


def refused(call: Callable[[], Any], words: str) -> str:
    """Return the one line with which a call is refused, which has such words."""
    with pytest.raises(JaxmasError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and re.search(words, message), message
    return message


def numbers(tree: Any) -> Any:
    """Turn Python numbers and lists into arrays of single precision; integers stay integers."""

    def convert(leaf):
        leaf = np.asarray(leaf)
        return jnp.asarray(leaf, jnp.float32 if leaf.dtype.kind == "f" else jnp.int32)

    return jax.tree.map(convert, tree, is_leaf=lambda leaf: isinstance(leaf, list | tuple))


def skill_tables(num_skills: int = SKILLS, seed: int = 0) -> np.ndarray:
    """Return one random permutation of the tokens per skill."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(VOCABULARY) for _ in range(num_skills)])


def workflow_params(env: Workflow = ENV, **changes: Any) -> WorkflowParams:
    """Return a quiet world: full-size chains at zero cost and zero noise but for what ``changes`` says.

    A change may name a field of the parameters, of their query mix, or, with ``reward_`` before it, of the reward.
    ``shape`` picks one graph shape by name; a single number given for a range is both of its ends.
    """
    skills, tiers, agents = env.num_skills, env.num_tiers, env.num_agents
    weights = np.eye(len(SHAPES))[SHAPES.index(changes.pop("shape", "chain"))]
    mix: dict[str, Any] = {
        "shape_weights": weights,
        "size": (1.0, 1.0),
        "width": 0.0,
        "difficulty": (1.0, 1.0),
        "difficulty_spread": 0.0,
        "skill_focus": (0.0, 0.0),
        "rho": (0.0, 0.0),
        "distractor": (0.0, 0.0),
        "handoff_noise": (0.0, 0.0),
        "slack": (float(env.horizon), float(env.horizon)),
    }
    reward: dict[str, Any] = {
        "success": 1.0,
        "cost": 0.0,
        "complexity": 0.0,
        "latency": 0.0,
        "partial": 0.0,
        "cost_reference": 1.0,
        "complexity_reference": 1.0,
    }
    fields: dict[str, Any] = {
        "tables": skill_tables(skills),
        "tier_noise": np.zeros((tiers, skills)),
        "tier_cost": np.ones(tiers),
        "mismatch": np.ones((skills + 3, skills)),
        "ability": np.ones((agents, skills)),
        "faulty": np.zeros(agents),
        "adversarial": np.zeros(agents),
        "context_load": 0.0,
        "max_noise": 1.0,
        "read_cost": 0.0,
        "message_loss": 0.0,
        "plan_cost": 0.0,
        "change_cost": 0.0,
        "plan_loss": 0.0,
        "designer_noise": 0.0,
        "designer_delay": 0,
    }
    for name, value in changes.items():
        group, key = (reward, name.removeprefix("reward_")) if name.startswith("reward_") else (fields, name)
        group = mix if name in mix else group
        if key not in group:
            raise KeyError(name)
        group[key] = np.broadcast_to(np.asarray(value, np.asarray(group[key]).dtype), np.shape(group[key]))
    return WorkflowParams(mix=QueryMix(**numbers(mix)), reward=Reward(**numbers(reward)), **numbers(fields))


def noise(epsilon: float) -> dict[str, Any]:
    """Return the change that makes an attempt misread its operand with probability ``epsilon``."""
    return {"tier_noise": np.full((TIERS, SKILLS), epsilon)}


def make_plan(
    space: PlanSpace,
    members: Any = (0,),
    *,
    role: Any = GENERALIST,
    tier: Any = 0,
    task: Any = -1,
    reads: dict[int, Any] | None = None,
    quorum: Any = 1,
) -> Plan:
    """Return a plan for the given members; roles, tiers and tasks are one number, or one per member."""
    members = list(members)
    plan = jax.tree.map(np.array, space.empty())
    plan.active[members] = True
    for field, value in (("role", role), ("tier", tier), ("task", task)):
        getattr(plan, field)[members] = value
    for reader, senders in (reads or {}).items():
        plan.reads[reader, : len(senders)] = senders
    plan.quorum[:] = quorum
    return jax.tree.map(jnp.asarray, plan)


def quorum_of(space: PlanSpace, **votes: int) -> np.ndarray:
    """Return quorums of one but for the subtasks named, as ``quorum_of(space, t0=3)``."""
    quorum = np.ones(space.num_tasks, np.int32)
    for name, count in votes.items():
        quorum[int(name[1:])] = count
    return quorum


def make_query(
    params: WorkflowParams, parents: list[list[int]], env: Workflow = ENV, *, seed: int = 0, **changes: Any
) -> Query:
    """Return a query with the given parents of each subtask, solved in numpy; ``changes`` replace fields."""
    rng, tasks, size = np.random.default_rng(seed), env.max_subtasks, len(parents)
    padded = np.full((tasks, MAX_PARENTS), -1)
    for subtask, above in enumerate(parents):
        padded[subtask, : len(above)] = above
    skill = np.broadcast_to(changes.pop("skill", rng.integers(0, env.num_skills, tasks)), tasks)
    operand = np.broadcast_to(changes.pop("operand", rng.integers(0, VOCABULARY, tasks)), tasks)
    height = longest_ways(padded)
    depth = int(height[:size].max()) + 1
    fields = {
        "mask": np.arange(tasks) < size,
        "skill": skill,
        "difficulty": np.ones(tasks),
        "operand": operand,
        "parents": padded,
        "needs": pack(jnp.asarray((padded[:, :, None] == np.arange(tasks)).any(1))),
        "answer": solved(np.asarray(params.tables), skill, operand, padded),
        "distraction": 1 + rng.integers(0, VOCABULARY - 1, tasks),
        "height": height,
        "depth": depth,
        "deadline": env.horizon,
        "rho": 0.0,
        "distractor": 0.0,
        "handoff_noise": 0.0,
        "shape": 0,
        "blur": jnp.uint32(seed),
    }
    fields |= changes
    kinds = {np.dtype(bool): jnp.bool_, np.dtype(np.uint32): jnp.uint32, np.dtype(np.float64): jnp.float32}
    arrays = {name: jnp.asarray(value, kinds.get(np.asarray(value).dtype, jnp.int32)) for name, value in fields.items()}
    return Query(**arrays)


def longest_ways(parents: np.ndarray) -> np.ndarray:
    """Return the longest way from each subtask to the sink, in edges; parents have higher numbers."""
    height = np.zeros(len(parents), int)
    for subtask in range(len(parents)):
        for parent in parents[subtask][parents[subtask] >= 0]:
            height[parent] = max(height[parent], height[subtask] + 1)
    return height


def solved(tables: np.ndarray, skill: np.ndarray, operand: np.ndarray, parents: np.ndarray) -> np.ndarray:
    """Return y_k = T_{s_k}[(x_k + Σ_p y_p) mod V] from the last subtask to the sink."""
    answer = np.zeros(len(operand), int)
    for subtask in reversed(range(len(operand))):
        above = parents[subtask][parents[subtask] >= 0]
        answer[subtask] = tables[skill[subtask], (operand[subtask] + answer[above].sum()) % VOCABULARY]
    return answer


@dataclasses.dataclass(frozen=True)
class FixedPlan:
    """A meta-policy that always gives the plan that it has as its parameters."""

    def init(self) -> tuple:
        return ()

    def apply(self, params: Plan, carry: tuple, team: Any, key: Any) -> tuple[Plan, tuple, dict[str, Any]]:
        return params, carry, {}


@functools.cache
def player(env: Workflow, **options: Any):
    """Return the compiled function that plays one query per key: its final state, meta-steps and executor steps."""

    def play(key, params, plan, error):
        policies = Policies(FixedPlan(), plan, ScriptedExecutor(), {"tables": params.tables, "error": error})
        begin_key, play_key = jax.random.split(key)
        episode = begin(env, params, policies, begin_key)
        episode, meta, steps = play_query(env, params, policies, episode, play_key, **options)
        return episode.state, meta, steps

    return jax.jit(jax.vmap(play, in_axes=(0, None, None, None)))


def play(
    params: WorkflowParams, plan: Plan, num_queries: int, *, env: Workflow = ENV, seed: int = 0, error: float = 0.0
) -> tuple[WorkflowState, dict[str, np.ndarray]]:
    """Play queries under one fixed plan with the exact executor; return final states and final metrics."""
    keys = jax.random.split(jax.random.key(seed), num_queries)
    state, meta, _ = player(env)(keys, params, plan, jnp.float32(error))
    return state, {name: np.asarray(values)[:, -1] for name, values in meta.metrics.items()}


@functools.cache
def compiled(env: Workflow, method: str):
    """Return an environment's method, jitted once per environment."""
    return jax.jit(getattr(env, method))


@jax.jit
def _exact_actions(features, tables):
    answer, agrees = exact_answer(features, tables)
    return jnp.where(agrees, PASS, answer)


class Game:
    """One query played step by step, with everyone answering by the exact rule unless told otherwise."""

    def __init__(self, params: WorkflowParams, query: Query, plan: Plan, env: Workflow = ENV, *, seed: int = 0):
        self.env, self.params = env, params
        self.timestep: Any = None
        self.state, _ = compiled(env, "start")(jax.random.key(seed), query, params)
        self.replan(plan)

    def replan(self, plan: Plan) -> None:
        self.state, self.observation = compiled(self.env, "coordinate")(
            jax.random.key(0), self.state, plan, self.params
        )

    def exact(self) -> np.ndarray:
        """Return the exact rule's actions."""
        return np.array(_exact_actions(self.observation.features, self.params.tables))

    def step(self, **changes: int) -> dict[int, int]:
        """Take a step, with other actions for the agents named, as ``step(a3=5)``; return who did what."""
        actions = self.exact()
        for name, action in changes.items():
            actions[int(name[1:])] = action
        did = {int(agent): int(self.state.work.task[agent]) for agent in np.flatnonzero(self.state.work.acting)}
        self.state, self.timestep = compiled(self.env, "step")(
            jax.random.key(0), self.state, jnp.asarray(actions), self.params
        )
        self.observation = self.timestep.observation
        return did

    def finish(self, limit: int = 40) -> list[dict[int, int]]:
        """Play to the end; return who did what at each step."""
        steps = []
        while not self.state.over and len(steps) < limit:
            steps.append(self.step())
        return steps

    def votes(self, agent: int, task: int) -> dict[int, int]:
        """Return an agent's votes on a subtask as token → count."""
        word = int(self.state.board.votes[agent, task])
        return {token: word >> (4 * token) & 15 for token in range(VOCABULARY) if word >> (4 * token) & 15}


def same(a: Any, b: Any) -> bool:
    """Return whether two pytrees are equal to the bit."""
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def close(sample: np.ndarray, expected: float, sigmas: float = 4.0) -> bool:
    """Return whether the mean of a sample of 0s and 1s lies within some standard errors of a probability."""
    error = np.sqrt(max(expected * (1 - expected), 1e-4) / len(sample))
    return bool(abs(np.mean(sample) - expected) <= sigmas * error)
