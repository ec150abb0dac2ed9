"""Long chains: hundreds of steps in sequence, each of which has to be right, each decided by a race of votes.

Every step is small enough to have few possible answers. At each round of a step the members of the team vote once, in
the order of their slots; an answer that looks wrong is red-flagged, which costs its attempt and counts for nothing; the
first answer that is ``quorum`` votes ahead of every other is taken. No step is ever seen again: one wrong answer, and
the chain is lost. The game is that of maximal decomposition with first-to-ahead-by-k voting (MAKER, arXiv 2511.09030).

One environment step is a block of steps of the chain, so that a chain of a thousand is an episode; ``play_chain`` plays
chains of any length, in memory that does not grow with it.
"""

import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt32

from jaxmas.environments.probes import ActExecutor
from jaxmas.plans import Plan, PlanSpace
from jaxmas.pytrees import pytree
from jaxmas.registry import EXECUTORS, SCENARIOS, TEMPLATES, Scenario
from jaxmas.types import Environment, Observation, TeamObservation, TimeStep

CANDIDATES = 4
"""Answers of a step: the right one, the common mistake, and others."""
MOST_ROUNDS = 512
"""A race that nobody has won by then goes to who leads."""
TIERS = ("weak", "middle", "strong")
MAX_MARGIN = 16


@pytree
class LongchainParams:
    """How attempts go wrong, what they cost, and what counts."""

    error: Float[Array, "tiers"]
    """Chance that an attempt is wrong, at difficulty 1."""
    price: Float[Array, "tiers"]
    """Cost of an attempt, in units of one at every step of the chain."""
    common: Float[Array, ""]
    """Share of the wrong answers that are the common mistake."""
    flag_wrong: Float[Array, ""]
    flag_right: Float[Array, ""]
    """Chance that a wrong, or a right, answer is red-flagged."""
    difficulty: Float[Array, ""]
    """Queries are up to so many times as hard, or as easy, as difficulty 1."""
    blur: Float[Array, ""]
    """Deviation of the difficulty's logarithm, base 2, as the designer sees it."""
    cost_weight: Float[Array, ""]
    time_weight: Float[Array, ""]
    """Weight of the rounds, in units of one round at every step of the chain."""


@pytree
class Votes:
    """The law of one attempt of each slot, and what it costs."""

    right: Float[Array, "num_agents"]
    common: Float[Array, "num_agents"]
    other: Float[Array, "num_agents"]
    """Chance of each of the remaining answers; what is missing to 1 is red-flagged."""
    price: Float[Array, "num_agents"]

    @property
    def wrong(self) -> Float[Array, "num_agents"]:
        """Return the chance of a vote for any wrong answer."""
        return self.common + (CANDIDATES - 2) * self.other


@pytree
class Chain:
    """A query: how hard its steps are, truly and as the designer sees it."""

    difficulty: Float[Array, ""]
    seen: Float[Array, ""]
    """Logarithm, base 2, of the difficulty, with blur."""


@pytree
class LongchainState:
    """The query, the plan, and what the chain has come to."""

    query: Chain
    noise: UInt32[Array, "2"]
    """The data of a key: states are plain numbers."""
    active: Bool[Array, "num_agents"]
    tier: Int[Array, "num_agents"]
    margin: Int[Array, ""]
    block: Int[Array, ""]
    wrong: Int[Array, ""]
    """Steps that were decided wrongly."""
    attempts: Float[Array, ""]
    rounds: Float[Array, ""]
    cost: Float[Array, ""]


def law(params: LongchainParams, difficulty: Float[Array, ""], tier: Int[Array, "num_agents"]) -> Votes:
    """Return the law of the votes of slots of these tiers."""
    error = jnp.clip(params.error[tier] * difficulty, 0, 0.5)
    wrong = error * (1 - params.flag_wrong)
    return Votes(
        right=(1 - error) * (1 - params.flag_right),
        common=wrong * params.common,
        other=wrong * (1 - params.common) / (CANDIDATES - 2),
        price=params.price[tier],
    )


def race(
    key: PRNGKeyArray,
    steps: Int[Array, "block"],
    votes: Votes,
    active: Bool[Array, "num_agents"],
    margin: Int[Array, ""],
) -> tuple[Bool[Array, "block"], Int[Array, "block"]]:
    """Decide steps of a chain; return which were right, and after how many rounds each was decided.

    The chance of a step is its own, whatever block it is played in. Members who vote after the race is decided are paid
    for their round like all others.
    """
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(steps)
    bounds = jnp.stack([votes.right, votes.common, *[votes.other] * (CANDIDATES - 2)])
    bounds = jnp.cumsum(bounds, axis=0)  # [candidates, num_agents]
    slots = len(active)

    def vote(slot, carry, draws):
        ballots, winner = carry
        draw = draws[:, slot]
        candidate = jnp.sum(draw[:, None] >= bounds[:, slot], axis=1)  # CANDIDATES is red-flagged
        counts = (winner < 0) & active[slot]
        chosen = (candidate[:, None] == jnp.arange(CANDIDATES)) & counts[:, None]
        ballots = ballots + chosen
        rest = jnp.max(jnp.where(chosen, -1, ballots), axis=1)
        lead = jnp.max(jnp.where(chosen, ballots - rest[:, None], -1), axis=1)
        return ballots, jnp.where(counts & (lead >= margin), candidate, winner)

    def undecided(carry):
        return jnp.any(carry[1] < 0) & (carry[3] < MOST_ROUNDS)

    def go_round(carry):
        ballots, winner, rounds, now = carry
        draws = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, now), (slots,)))(keys)
        rounds = rounds + (winner < 0)
        if slots == 1:
            ballots, winner = vote(0, (ballots, winner), draws)
        else:
            ballots, winner = jax.lax.fori_loop(0, slots, functools.partial(vote, draws=draws), (ballots, winner))
        return ballots, winner, rounds, now + 1

    nobody = jnp.zeros(len(steps), jnp.int32)
    start = jnp.zeros((len(steps), CANDIDATES), jnp.int32), nobody - 1, nobody, jnp.int32(0)
    ballots, winner, rounds, _ = jax.lax.while_loop(undecided, go_round, start)
    return jnp.where(winner < 0, jnp.argmax(ballots, axis=1), winner) == 0, rounds


@functools.partial(jax.jit, static_argnames=("length", "block"))
def play_chain(
    key: PRNGKeyArray, votes: Votes, margin: Any, *, length: int, block: int = 4096
) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """Play a chain of any length with every slot on the team; return wrong steps and rounds.

    One scan over blocks: memory is that of a block, and the outcome does not hang on its size. Every round has as many
    attempts as ``votes`` has slots.
    """
    active, margin = jnp.ones(len(votes.right), bool), jnp.int32(margin)

    def play(carry, begun):
        wrong, rounds = carry
        steps = begun + jnp.arange(block)
        within = steps < length
        right, taken = race(key, steps, votes, active, margin)
        return (wrong + jnp.sum(within & ~right), rounds + jnp.sum(jnp.where(within, taken, 0))), None

    return jax.lax.scan(play, (jnp.int32(0), jnp.int32(0)), jnp.arange(0, length, block))[0]


@dataclasses.dataclass(frozen=True)
class Longchain(Environment):
    """A chain of blocks of steps; the plan says who votes, of which tier, and by how much an answer has to lead."""

    family: ClassVar[str] = "longchain"
    num_agents: int = 8
    horizon: int = 11
    coordination_interval: int = 11
    block: int = 93
    """Steps of the chain per environment step: 1,023 in all."""
    global_feature_names: ClassVar[tuple[str, ...]] = ("difficulty", "time")

    @property
    def length(self) -> int:
        """Return the steps of the chain."""
        return self.horizon * self.block

    @property
    def plan_space(self) -> PlanSpace:
        """Return the legal plans: members, their tiers, and the margin as the quorum of the one task."""
        return PlanSpace(self.num_agents, 1, 1, len(TIERS), 1, MAX_MARGIN, fields=("active", "tier", "quorum"))

    @property
    def num_actions(self) -> int:
        """Return the number of actions: an attempt."""
        return 1

    def reset(self, key: PRNGKeyArray, params: LongchainParams) -> tuple[LongchainState, TeamObservation]:
        """Draw a difficulty and what the designer sees of it."""
        noise_key, hard_key, blur_key = jax.random.split(key, 3)
        hard = jnp.log2(params.difficulty) * jax.random.uniform(hard_key, minval=-1, maxval=1)
        seen = hard + params.blur * jax.random.normal(blur_key)
        nobody = jnp.zeros(self.num_agents, jnp.int32)
        none, zero = jnp.int32(0), jnp.float32(0)
        query = Chain(2.0**hard, seen)
        noise = jax.random.key_data(noise_key)
        state = LongchainState(query, noise, nobody > 0, nobody, none + 1, none, none, zero, zero, zero)
        return state, self.observe_team(state, params)

    def reseed(self, key: PRNGKeyArray, state: LongchainState, params: LongchainParams) -> LongchainState:
        """Give every attempt new chance."""
        return dataclasses.replace(state, noise=jax.random.key_data(key))

    def coordinate(
        self, key: PRNGKeyArray, state: LongchainState, plan: Plan, params: LongchainParams
    ) -> tuple[LongchainState, Observation]:
        """Take up the plan."""
        plan, _ = self.plan_space.project(plan)
        over = self.is_over(state)

        def new(old: Array, now: Array) -> Array:
            return jnp.where(over, old, now)

        state = dataclasses.replace(
            state,
            active=new(state.active, plan.active),
            tier=new(state.tier, plan.tier),
            margin=new(state.margin, plan.quorum[0]),
        )
        return state, self._observe(state)

    def step(
        self, key: PRNGKeyArray, state: LongchainState, actions: Int[Array, "num_agents"], params: LongchainParams
    ) -> tuple[LongchainState, TimeStep]:
        """Race through a block; pay for success, less cost and time, at the chain's end."""
        over = self.is_over(state)
        votes = law(params, state.query.difficulty, state.tier)
        steps = state.block * self.block + jnp.arange(self.block)
        # Whoever is over has nobody to vote: its race must not keep those beside it waiting.
        margin = jnp.where(over, -MOST_ROUNDS, state.margin)
        right, rounds = race(jax.random.wrap_key_data(state.noise), steps, votes, state.active | over, margin)
        taken = jnp.where(over, 0, jnp.sum(rounds)).astype(jnp.float32)
        members, price = jnp.sum(state.active), jnp.sum(jnp.where(state.active, votes.price, 0))
        state = dataclasses.replace(
            state,
            block=state.block + ~over,
            wrong=state.wrong + jnp.where(over, 0, jnp.sum(~right)),
            attempts=state.attempts + taken * members,
            rounds=state.rounds + taken,
            cost=state.cost + taken * price,
        )
        ended = self.is_over(state)
        metrics = self._metrics(state)
        earned = metrics["success"] - params.cost_weight * metrics["cost"] - params.time_weight * metrics["latency"]
        timestep = TimeStep(
            observation=self._observe(state),
            reward=jnp.where(ended & ~over, earned, 0.0),
            agent_reward=jnp.zeros(self.num_agents),
            terminated=ended,
            truncated=jnp.array(False),
            metrics=metrics,
        )
        return state, timestep

    def is_over(self, state: LongchainState) -> Bool[Array, ""]:
        """Return whether the last block is decided."""
        return state.block >= self.horizon

    def steps_left(self, state: LongchainState) -> Int[Array, ""]:
        """Return the blocks that are left."""
        return self.horizon - state.block

    def observe_team(self, state: LongchainState, params: LongchainParams) -> TeamObservation:
        """Show the blurred difficulty and the time."""
        seen = jnp.clip(state.query.seen / 4 + 0.5, 0, 1)
        return TeamObservation(
            task_tokens=seen[None, None],
            task_mask=jnp.ones(1, bool),
            task_parents=jnp.zeros((1, 0), jnp.int32),
            agent_tokens=jnp.stack([state.active, state.tier / (len(TIERS) - 1)], axis=1).astype(jnp.float32),
            agent_mask=jnp.ones(self.num_agents, bool),
            pair_features=jnp.zeros((self.num_agents, 1, 0)),
            global_features=jnp.stack([seen, state.block / self.horizon]),
        )

    def _metrics(self, state: LongchainState) -> dict[str, Array]:
        """Return running totals: cost in attempts at price 1 per step of the chain, latency in rounds per step."""
        return {
            "success": (self.is_over(state) & (state.wrong == 0)).astype(jnp.float32),
            "cost": state.cost / self.length,
            "latency": state.rounds / self.length,
            "wrong": state.wrong.astype(jnp.float32),
            "attempts": state.attempts,
            "active_agents": jnp.sum(state.active).astype(jnp.float32),
        }

    def _observe(self, state: LongchainState) -> Observation:
        acting = state.active & ~self.is_over(state)
        mask = jnp.ones((self.num_agents, 1), bool)
        return Observation(jnp.zeros((self.num_agents, 1)), state.tier * 0, state.tier, mask, acting)


def difficulty_of(team: TeamObservation) -> Float[Array, ""]:
    """Return the difficulty that the designer sees."""
    return 2.0 ** (4 * (team.global_features[0] - 0.5))


@pytree
class LongchainTemplate:
    """Members, their tier and the margin; one row or a table of them."""

    size: Int[Array, "*rows"]
    tier: Int[Array, "*rows"]
    margin: Int[Array, "*rows"]


@dataclasses.dataclass(frozen=True)
class LongchainTemplates:
    """One row per number of members, tier and margin."""

    rows: tuple[tuple[int, ...], ...] = tuple(
        (size, tier, margin) for size in (1, 4) for tier in range(len(TIERS)) for margin in (1, 2, 3, 4, 6, 8)
    )
    parts: ClassVar[dict[str, tuple[str, ...]]] = {"size": (), "tier": TIERS, "margin": ()}

    def single(self, row: tuple[int, ...]) -> bool:
        """Return whether a row is one agent."""
        return row[0] == 1

    def names(self, env: Any) -> dict[str, tuple[str, ...]]:
        """Return what the values of plan fields are called."""
        return {"tier": TIERS}

    def table(self) -> LongchainTemplate:
        """Return all rows as a tree of columns."""
        return self.columns(self.rows)

    def columns(self, rows: tuple[tuple[int, ...], ...]) -> LongchainTemplate:
        """Return some rows as a tree of columns."""
        return LongchainTemplate(*jnp.array(rows, jnp.int32).T)

    def row(self, row: tuple[int, ...]) -> LongchainTemplate:
        """Return a row as a tree of scalars."""
        return LongchainTemplate(*(jnp.int32(number) for number in row))

    def build(self, env: Longchain, row: LongchainTemplate, team: TeamObservation) -> Plan:
        """Let the first slots vote."""
        plan = env.plan_space.empty()
        members = jnp.arange(env.num_agents) < row.size
        plan = dataclasses.replace(plan, active=members, tier=plan.tier + row.tier, quorum=plan.quorum * row.margin)
        return env.plan_space.project(plan)[0]

    def describe(self, row: tuple[int, ...]) -> str:
        """Return a row in words."""
        size, tier, margin = (int(number) for number in row)
        return f"{size} {TIERS[tier]} at once, {margin} ahead"


def longchain_params() -> LongchainParams:
    """Return the parameters of ``workflow-longchain-v0``."""
    f = jnp.float32
    return LongchainParams(
        error=f([0.06, 0.02, 0.006]), price=f([0.04, 0.1, 0.25]), common=f(0.7), flag_wrong=f(0.3),
        flag_right=f(0.01), difficulty=f(2.0), blur=f(0.5), cost_weight=f(1.0), time_weight=f(0.01),
    )  # fmt: skip


def _make(num_agents: int, *, coordination_interval: int = 11) -> tuple[Longchain, LongchainParams]:
    return Longchain(num_agents, coordination_interval=coordination_interval), longchain_params()


TEMPLATES.add("longchain", LongchainTemplates(), "members, tier and margin", "longchain")
EXECUTORS.add("attempt", lambda env, params: (ActExecutor(), None), "attempts every step of its chain", "longchain")
SCENARIOS.add(
    "workflow-longchain-v0",
    Scenario("workflow-longchain-v0", _make, 8, "attempt"),
    "a thousand steps in sequence, all of which have to be right: races of votes, ahead by k",
    "longchain",
)
