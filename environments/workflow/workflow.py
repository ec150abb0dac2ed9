"""``workflow``: a team solves a query, the simulated language-model team.

A query is a graph of subtasks; an executor sees an operand through noise and its parents' answers through messages,
and answers a token. Every attempt is a vote; one of the agents, the reporter, reports the plurality that it sees.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt32

from jaxmas.environments.noise import hashed, uniform
from jaxmas.environments.workflow import votes as v
from jaxmas.environments.workflow.observe import (
    AGENT_TOKENS,
    GLOBAL_FEATURES,
    Brief,
    agent_features,
    brief,
    progress,
    team_observation,
)
from jaxmas.environments.workflow.params import WorkflowParams, role_names
from jaxmas.environments.workflow.query import MAX_PARENTS, Query, sample_query
from jaxmas.environments.workflow.work import TIE, Board, Team, Work, deliver, next_work, record, sent_votes
from jaxmas.errors import refuse
from jaxmas.plans import Plan, PlanSpace
from jaxmas.pytrees import pytree
from jaxmas.types import Environment, Observation, TeamObservation, TimeStep

HONEST, FAULTY, ADVERSARIAL = 0, 1, 2
MAX_DELAY = 4
"""How many plan boundaries back the designer's view can lag."""


@pytree
class Totals:
    """Running totals of a query."""

    cost: Float[Array, ""]
    messages: Int[Array, ""]
    violations: Int[Array, ""]
    complexity: Float[Array, ""]
    attempts: Int[Array, "num_agents"]
    right: Int[Array, "tasks"]
    """Right votes minus wrong ones."""


@pytree
class WorkflowState:
    """A query under way."""

    query: Query
    brief: Brief
    seed: UInt32[Array, ""]
    agent_seeds: UInt32[Array, "num_agents"]
    character: Int[Array, "num_agents"]
    """Honest, faulty or adversarial."""
    plan: Plan
    team: Team
    board: Board
    work: Work
    totals: Totals
    progress: Float[Array, "delays tasks 2"]
    """What the designer could see at the last plan boundaries, newest first."""
    step: Int[Array, ""]
    boundary: Int[Array, ""]
    reported: Int[Array, ""]
    """The answer; -1 until the report, or where there was nothing to report."""
    over: Bool[Array, ""]


@dataclasses.dataclass(frozen=True)
class Workflow(Environment):
    """The workflow environment; sizes only."""

    family: ClassVar[str] = "workflow"
    num_agents: int = 16
    max_subtasks: int = 8
    num_skills: int = 4
    num_tiers: int = 3
    inbox: int = 8
    horizon: int = 12
    coordination_interval: int = 12

    def __post_init__(self) -> None:
        """Refuse sizes that the packed votes or the roll-out cannot hold."""
        super().__post_init__()
        refuse(not 1 <= self.inbox <= 16, f"inbox is {self.inbox}; it has to be 1 to 16")
        tasks = self.max_subtasks
        fits = 2 <= tasks <= 32 or (tasks % 32 == 0 and tasks <= 4096)
        refuse(not fits, f"max_subtasks is {tasks}; it has to be 2 to 32, or a multiple of 32 up to 4,096")

    @property
    def plan_space(self) -> PlanSpace:
        """Return the legal plans: all six fields are in use."""
        return PlanSpace(
            num_agents=self.num_agents,
            num_tasks=self.max_subtasks,
            num_roles=len(role_names(self.num_skills)),
            num_tiers=self.num_tiers,
            inbox=self.inbox,
            max_quorum=v.MAX_COUNT,
        )

    @property
    def agent_token_names(self) -> tuple[str, ...]:
        """Return what the columns of agent tokens are."""
        return AGENT_TOKENS

    @property
    def global_feature_names(self) -> tuple[str, ...]:
        """Return the names of the team observation's global features."""
        return GLOBAL_FEATURES

    @property
    def num_actions(self) -> int:
        """Return the number of executor actions: a token to answer, or to pass."""
        return v.VOCABULARY + 1

    def reset(self, key: PRNGKeyArray, params: WorkflowParams) -> tuple[WorkflowState, TeamObservation]:
        """Draw a query and its noise."""
        query_key, noise_key = jax.random.split(key)
        query = sample_query(query_key, params.mix, params.tables, self.max_subtasks, self.horizon)
        return self.start(noise_key, query, params)

    def start(self, key: PRNGKeyArray, query: Query, params: WorkflowParams) -> tuple[WorkflowState, TeamObservation]:
        """Begin a given query with noise from ``key``."""
        seeds = jax.random.bits(key, (self.num_agents + 1,), jnp.uint32)
        plan = self.plan_space.empty()
        state = WorkflowState(
            query=query,
            brief=brief(self, query, params),
            seed=seeds[0],
            agent_seeds=seeds[1:],
            character=_characters(seeds[1:], params),
            plan=plan,
            team=_carry_out(plan, params),
            board=self._empty_board(),
            work=self._no_work(),
            totals=self._no_totals(),
            progress=jnp.zeros((MAX_DELAY + 1, self.max_subtasks, 2)),
            step=jnp.int32(0),
            boundary=jnp.int32(0),
            reported=jnp.int32(-1),
            over=jnp.array(False),
        )
        return state, self.observe_team(state, params)

    def reseed(self, key: PRNGKeyArray, state: WorkflowState, params: WorkflowParams) -> WorkflowState:
        """Give a freshly reset query new noise; the query and the designer's view of it stay."""
        seeds = jax.random.bits(key, (self.num_agents + 1,), jnp.uint32)
        character = _characters(seeds[1:], params)
        return dataclasses.replace(state, seed=seeds[0], agent_seeds=seeds[1:], character=character)

    def coordinate(
        self, key: PRNGKeyArray, state: WorkflowState, plan: Plan, params: WorkflowParams
    ) -> tuple[WorkflowState, Observation]:
        """Apply a plan: agents that it reaches take it up, the others keep theirs, and all of it is paid for."""
        plan, violations = self.plan_space.project(plan)
        reached = uniform(hashed(state.agent_seeds, -1, state.boundary)) >= params.plan_loss
        reached = v.settled((reached & ~state.over).astype(jnp.int32)) > 0
        plan = _take_up(state.plan, plan, reached)
        team = _carry_out(plan, params)
        cost = params.plan_cost + params.change_cost * _changed_fields(state.plan, plan)
        live = ~state.over
        size = (jnp.sum(plan.active) + jnp.sum(plan.reads >= 0)).astype(jnp.float32)
        totals = dataclasses.replace(
            state.totals,
            cost=state.totals.cost + jnp.where(live, cost, 0),
            violations=state.totals.violations + jnp.where(live, violations, 0),
            complexity=jnp.where(live, jnp.maximum(state.totals.complexity, size), state.totals.complexity),
        )
        work = next_work(state.query, team, state.board, params, state.seed, state.agent_seeds, state.step)
        history = jnp.concatenate([progress(state.board, state.team)[None], state.progress[:-1]])
        state = dataclasses.replace(
            state,
            plan=plan,
            team=team,
            work=dataclasses.replace(work, acting=work.acting & live),
            totals=totals,
            progress=history,
            boundary=state.boundary + 1,
        )
        return state, self._observe(state)

    def step(
        self, key: PRNGKeyArray, state: WorkflowState, actions: Int[Array, "num_agents"], params: WorkflowParams
    ) -> tuple[WorkflowState, TimeStep]:
        """Record the answers, let everyone look for new work, and let the reporter decide whether to report."""
        work, query = state.work, state.query
        answer = v.settled(_answers(state, actions))
        counted = work.acting & (answer < v.VOCABULARY)
        board = record(state.board, work, state.team, answer, counted)
        right = jnp.where(answer == query.answer[work.task], 1, -1) * counted
        totals = _add_up(state, right, params)
        step = state.step + ~state.over
        upcoming = next_work(query, state.team, board, params, state.seed, state.agent_seeds, step)
        due, answered = _report(state, board, params, step, jnp.any(upcoming.acting))
        ending = due & ~state.over
        reported = jnp.where(ending, answered, state.reported)
        over = state.over | due
        upcoming = dataclasses.replace(upcoming, acting=upcoming.acting & ~over)
        state = dataclasses.replace(
            state, board=board, work=upcoming, totals=totals, step=step, reported=reported, over=over
        )
        metrics = _metrics(state, params, self.horizon)
        reward = jnp.where(ending, _reward(metrics, params), 0.0)
        timestep = TimeStep(
            observation=self._observe(state),
            reward=reward,
            agent_reward=_agent_reward(state, right),
            terminated=over,
            truncated=jnp.array(False),
            metrics=metrics,
        )
        return state, timestep

    def is_over(self, state: WorkflowState) -> Bool[Array, ""]:
        """Return whether the reporter has reported."""
        return state.over

    def steps_left(self, state: WorkflowState) -> Int[Array, ""]:
        """Return the steps until the query's own deadline."""
        return jnp.where(state.over, 0, state.query.deadline - state.step)

    def observe_team(self, state: WorkflowState, params: WorkflowParams) -> TeamObservation:
        """Return what the designer may see of the query and of the progress."""
        return team_observation(self, state, params)

    def _observe(self, state: WorkflowState) -> Observation:
        features = agent_features(state.query, state.team, state.work, self.num_tiers)
        mask = jnp.ones((self.num_agents, self.num_actions), bool)
        return Observation(features, state.plan.role, state.plan.tier, mask, state.work.acting)

    def _empty_board(self) -> Board:
        agents, words = jnp.zeros(self.num_agents, jnp.int32), -(-self.max_subtasks // 32)
        return Board(
            votes=jnp.zeros((self.num_agents, self.max_subtasks), jnp.uint32),
            counts=jnp.zeros((v.PLANES, self.num_agents, words), jnp.uint32),
            reviewed=jnp.zeros((self.num_agents, words), jnp.uint32),
            last_task=agents - 1,
            last_inputs=agents,
            done=agents,
            revisions=agents,
        )

    def _no_work(self) -> Work:
        agents, idle = jnp.zeros(self.num_agents, jnp.int32), jnp.zeros(self.num_agents, bool)
        parents = jnp.zeros((self.num_agents, MAX_PARENTS), jnp.int32)
        peers = jnp.zeros((self.num_agents, v.VOCABULARY), jnp.int32)
        return Work(agents, idle, idle, agents, parents, parents.astype(jnp.float32), peers, agents, agents)

    def _no_totals(self) -> Totals:
        zero, agents = jnp.int32(0), jnp.zeros(self.num_agents, jnp.int32)
        tasks = jnp.zeros(self.max_subtasks, jnp.int32)
        return Totals(jnp.float32(0), zero, zero, jnp.float32(0), agents, tasks)


def _characters(agent_seeds: UInt32[Array, "num_agents"], params: WorkflowParams) -> Int[Array, "num_agents"]:
    """Draw who is faulty and who adversarial in this query."""
    draw = uniform(hashed(agent_seeds, -2))
    bad = params.faulty + params.adversarial
    return jnp.where(draw < params.faulty, FAULTY, jnp.where(draw < bad, ADVERSARIAL, HONEST))


def _take_up(old: Plan, new: Plan, reached: Bool[Array, "num_agents"]) -> Plan:
    """Keep the old rows of the agents that the new plan did not reach; quorums are common knowledge."""

    def rows(before, after):
        return jnp.where(reached.reshape(-1, *[1] * (after.ndim - 1)), after, before)

    kept = {name: rows(getattr(old, name), getattr(new, name)) for name in ("active", "role", "tier", "task", "reads")}
    return dataclasses.replace(new, **kept)


def _changed_fields(old: Plan, new: Plan) -> Int[Array, ""]:
    """Count the fields that differ, over all members."""
    changed = (old.active != new.active).astype(jnp.int32)
    for field in ("role", "tier", "task"):
        changed += getattr(old, field) != getattr(new, field)
    changed += jnp.any(old.reads != new.reads, axis=1)
    return jnp.sum(jnp.where(new.active | old.active, changed, 0))


def _carry_out(plan: Plan, params: WorkflowParams) -> Team:
    """Derive what the agents need at each step from the plan."""
    skills = params.mismatch.shape[1]
    critic, aggregator = plan.role == skills + 1, plan.role == skills + 2
    mismatch = params.mismatch[plan.role]
    noise = params.tier_noise[plan.tier] * mismatch * params.ability
    preference = jnp.clip(16 - jnp.round(4 * mismatch), 0, 15).astype(jnp.int32)
    reporter = jnp.argmax(jnp.where(plan.active, 1 + aggregator, 0))
    return Team(
        active=plan.active,
        role=plan.role,
        tier=plan.tier,
        task=plan.task,
        share=_shares(plan, plan.active & ~critic & ~aggregator & (plan.task >= 0)),
        reads=plan.reads,
        quorum=v.pack_counts(plan.quorum),
        critic=critic,
        aggregator=aggregator,
        noise=noise,
        preference=preference,
        reporter=reporter.astype(jnp.int32),
    )


def _shares(plan: Plan, working: Bool[Array, "num_agents"]) -> Int[Array, "num_agents"]:
    """Divide each subtask's quorum evenly, rounded up, among the members assigned to it."""
    tasks = len(plan.quorum)
    post = jnp.where(working, plan.task, tasks)
    members = jnp.zeros(tasks + 1, jnp.int32).at[post].add(1)[post]
    return jnp.where(working, -(-plan.quorum[jnp.minimum(post, tasks - 1)] // members), 0)


def _answers(state: WorkflowState, actions: Int[Array, "num_agents"]) -> Int[Array, "num_agents"]:
    """Replace the answers of faulty slots by chance and those of adversarial ones by the agreed wrong answer."""
    task = state.work.task
    attempt = state.work.own_count + (v.MAX_COUNT + 1) * state.board.revisions
    chance = (hashed(state.agent_seeds, task, attempt, 3) >> 29).astype(jnp.int32)
    agreed = (state.query.answer[task] + state.query.distraction[task]) % v.VOCABULARY
    answer = jnp.where(state.character == FAULTY, chance, actions)
    return jnp.where(state.character == ADVERSARIAL, agreed, answer)


def _agent_reward(state: WorkflowState, right: Int[Array, "num_agents"]) -> Float[Array, "num_agents"]:
    """Return 1 for a right vote, and -1 for a critic's wrong objection.

    A wrong answer of anyone else costs nothing: else it would pay to pass wherever one is more likely wrong than right.
    What a faulty or adversarial slot voted is not its executor's doing.
    """
    earned = jnp.where(state.team.critic, right, jnp.maximum(right, 0))
    return jnp.where(state.character == HONEST, earned, 0).astype(jnp.float32)


def _add_up(state: WorkflowState, right: Int[Array, "num_agents"], params: WorkflowParams) -> Totals:
    """Charge the attempts of this step; ``right`` is 1 for a right vote, -1 for a wrong one, 0 for none."""
    work, totals = state.work, state.totals
    price = params.tier_cost[state.team.tier] * (1 + params.read_cost * work.messages)
    return dataclasses.replace(
        totals,
        cost=totals.cost + jnp.sum(jnp.where(work.acting, price, 0)),
        messages=totals.messages + jnp.sum(jnp.where(work.acting, work.messages, 0)),
        attempts=totals.attempts + work.acting,
        right=totals.right.at[work.task].add(right),
    )


def _report(
    state: WorkflowState, board: Board, params: WorkflowParams, step: Int[Array, ""], working: Bool[Array, ""]
) -> tuple[Bool[Array, ""], Int[Array, ""]]:
    """Decide whether the reporter reports now, and what: the plurality of the sink's votes that it sees."""
    seen, visible = sink_votes(state, board, params)
    token, top = v.plurality(seen, hashed(state.seed, TIE, 0))
    due = (visible >= state.plan.quorum[0]) | (step >= state.query.deadline) | ~working
    return due, jnp.where(top > 0, token, -1)


def sink_votes(state: WorkflowState, board: Board, params: WorkflowParams) -> tuple[Int[Array, "8"], Int[Array, ""]]:
    """Return the sink's votes that reach the reporter, and how many were in sight before any was lost."""
    reporter, sink = state.team.reporter, jnp.zeros(1, jnp.int32)
    reads, seeds = state.team.reads[reporter], state.agent_seeds
    sent = sent_votes(board, reporter, reads, sink)
    received = deliver(sent, seeds[reporter], seeds[jnp.maximum(reads, 0)], sink, state.query, params)
    return v.pooled(received[:, 0]), jnp.sum(v.size(sent)).astype(jnp.int32)


def _metrics(state: WorkflowState, params: WorkflowParams, horizon: int) -> dict[str, Any]:
    """Return the running totals, in the units of the tables."""
    totals, query, over = state.totals, state.query, state.over
    success = (state.reported == query.answer[0]) & over
    partial = jnp.sum((totals.right > 0) & query.mask) / jnp.sum(query.mask)
    return {
        "success": success.astype(jnp.float32),
        "cost": totals.cost / params.reward.cost_reference,
        "complexity": totals.complexity / params.reward.complexity_reference,
        "latency": state.step.astype(jnp.float32) / horizon,
        "partial": partial,
        "attempts": jnp.sum(totals.attempts).astype(jnp.float32),
        "messages": totals.messages.astype(jnp.float32),
        "active_agents": jnp.sum(state.plan.active).astype(jnp.float32),
        "acting_agents": jnp.sum(totals.attempts > 0).astype(jnp.float32),
        "plan_violations": totals.violations.astype(jnp.float32),
    }


def _reward(metrics: dict[str, Any], params: WorkflowParams) -> Float[Array, ""]:
    """Weigh success against cost, complexity and latency."""
    weights = params.reward
    return (
        weights.success * metrics["success"]
        - weights.cost * metrics["cost"]
        - weights.complexity * metrics["complexity"]
        - weights.latency * metrics["latency"]
        + weights.partial * metrics["partial"]
    )
