"""Check scripts against programs worked out by hand, a slow interpreter, and as a distribution that can be listed."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmas
from jaxmas.catalog import TEMPLATES
from jaxmas.environments.workflow.workflow import Workflow
from jaxmas.errors import JaxmasError
from jaxmas.registry import DESIGN_SPACES
from jaxmas.spaces.language import Language
from jaxmas.spaces.script import FORBIDDEN, ScriptSpace, next_token

BATCH = 2048
"""Programs are run in batches of one size, so that each language is compiled once."""
SPARSE = (0, 2)
"""The only subtasks of the query below, so that ``next`` has something to leave out."""
CHAIN = "block topology=chain size=4 roles=generalist tier=weak tasks=free quorum=1 sink_quorum=3 "


@functools.cache
def world(kind: str, num_agents: int):
    """Return an environment and what the designer sees: two subtasks in a workflow, two contexts in a probe."""
    env, params = jaxmas.make(
        {"workflow": "workflow-mixed-v0", "probe": "probe-context-v0"}[kind], num_agents=num_agents
    )
    team = jax.jit(env.reset)(jax.random.key(0), params)[1]
    if kind == "probe":
        return env, team
    present = jnp.isin(jnp.arange(env.plan_space.num_tasks), jnp.array(SPARSE))
    return env, dataclasses.replace(team, task_mask=present)


@functools.cache
def designing(kind: str, noise: float) -> tuple[Any, Any]:
    """Return the noisy weights of a small designer and its outputs; the number of agents does not matter to them."""
    env, team = world(kind, 8 if kind == "workflow" else 2)
    space = ScriptSpace(env, 8, 32 if kind == "workflow" else 5)
    weights = jax.jit(space.network.init)(jax.random.key(1), team)
    keys = iter(jax.random.split(jax.random.key(2), len(jax.tree.leaves(weights))))
    weights = jax.tree.map(lambda leaf: leaf + noise * jax.random.normal(next(keys), leaf.shape), weights)
    return weights, jax.jit(space.network.apply)(weights, team)[0]


@functools.cache
def compiled(language: Language):
    def run(tokens, team):
        plan, valid = language.run(tokens, team)
        return plan, valid, language.env.plan_space.project(plan)[1]

    return jax.jit(jax.vmap(run, in_axes=(0, None)))


def run(language: Language, programs: Any, team: Any) -> tuple[Any, np.ndarray, np.ndarray]:
    """Return plans, whether programs are valid, and how often projection would change their plans."""
    programs = np.asarray(programs)
    padded = jnp.array(np.concatenate([programs, np.zeros((BATCH - len(programs), language.length), np.int32)]))
    results = compiled(language)(padded, team)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[: len(programs)], results)


def plan_of(text: str, language: Language, team: Any) -> dict[str, Any]:
    """Return the fields of the plan of a program that has to be valid."""
    plan, valid, _ = run(language, language.parse(text)[None], team)
    assert valid[0], language.text(language.parse(text), team)
    return {field.name: getattr(plan, field.name)[0].tolist() for field in dataclasses.fields(plan)}


def inboxes(size: int, agents: int, **reads: list[int]) -> list[list[int]]:
    """Return whom each agent reads from ``a=[...]`` for slot 0, ``b`` for slot 1, ..."""
    rows = [reads.get(name, []) for name in "abcdefgh"[:agents]]
    return [row + [-1] * (size - len(row)) for row in rows]


# --- by hand


GENERALIST, CRITIC = 4, 5
T, F = True, False


def test_members_who_read_each_other() -> None:
    env, team = world("workflow", 8)
    plan = plan_of(
        "add specialist-2 strong add generalist weak read first add critic middle read back1 read back1 read back2 "
        "send back2 assign first quorum all 2 quorum rest 5 stop",
        Language(env, 32),
        team,
    )
    assert plan["active"] == [T, T, T, F, F, F, F, F]
    assert plan["role"][:3] == [2, GENERALIST, CRITIC]
    assert plan["tier"][:3] == [2, 0, 1]
    assert plan["task"][:3] == [-1, -1, 0]
    assert plan["reads"] == inboxes(8, 8, a=[2], b=[0], c=[1, 0])
    assert plan["quorum"] == [2] + [5] * 7


def test_a_block_that_is_changed() -> None:
    """The chain reads 0 ← 1 ← 2 ← 3; a critic joins and reads all; the focus of a block is slot 0."""
    env, team = world("workflow", 8)
    plan = plan_of(CHAIN + "assign next send all add critic strong read all send back3 quorum first 4", LONG, team)
    assert plan["active"] == [T] * 5 + [F] * 3
    assert plan["role"][:5] == [GENERALIST] * 4 + [CRITIC]
    assert plan["tier"][:5] == [0, 0, 0, 0, 2]
    assert plan["task"] == [0] + [-1] * 7
    assert plan["reads"] == inboxes(8, 8, a=[1], b=[2, 0, 4], c=[3, 0], d=[0], e=[0, 1, 2, 3])
    assert plan["quorum"] == [4] + [1] * 7
    assert env == LONG.env


def test_doubling_as_far_as_slots_last() -> None:
    """3, 6, 8 members: the last two are copies of slots 0 and 1, and slot 2, whom slot 0 reads, has no second copy."""
    _, team = world("workflow", 8)
    plan = plan_of(
        "add specialist-0 weak assign first add specialist-1 weak read first "
        "add critic strong send first double double",
        LONG,
        team,
    )
    assert plan["active"] == [T] * 8
    assert plan["role"] == [0, 1, CRITIC, 0, 1, CRITIC, 0, 1]
    assert plan["tier"] == [0, 0, 2, 0, 0, 2, 0, 0]
    assert plan["task"] == [0, -1, -1, 0, -1, -1, 0, -1]
    assert plan["reads"] == inboxes(8, 8, a=[2], b=[0], d=[5], e=[3], g=[2], h=[6])


def test_next_goes_to_the_present_task_with_fewest_members() -> None:
    _, team = world("workflow", 8)
    add = "add generalist weak assign "
    assert plan_of(f"{add} next {add} next {add} next {add} next", LONG, team)["task"][:4] == [0, 2, 0, 2]
    assert plan_of(f"{add} first {add} first {add} next {add} free", LONG, team)["task"][:4] == [0, 0, 2, -1]
    nothing = dataclasses.replace(team, task_mask=jnp.zeros_like(team.task_mask))
    assert plan_of(f"{add} next", LONG, nothing)["task"][0] == -1
    assert plan_of("add generalist weak assign first double assign next", LONG, team)["task"][:2] == [2, 0]


def test_an_inbox_that_is_full_stays_as_it_is() -> None:
    language = Language(Workflow(num_agents=8, inbox=2))
    _, team = world("workflow", 8)
    four = "add generalist weak double double add critic strong "
    plan = plan_of(four + "read back2 read all read first", language, team)
    assert plan["reads"] == inboxes(2, 8, e=[2, 0])
    plan = plan_of(four + "read all send all add critic weak send first send all", language, team)
    assert plan["reads"] == inboxes(2, 8, a=[4, 5], b=[4, 5], c=[4, 5], d=[4, 5], e=[0, 1])


def test_a_probe_has_tiers_alone() -> None:
    env, team = world("probe", 2)
    language = Language(env, 6)
    assert language.words == ("block", "add", "double", "stop", "tier=0", "tier=1", "tier-0", "tier-1")
    plan = plan_of("add tier-1 double stop", language, team)
    assert plan["active"] == [T, T] and plan["tier"] == [1, 1]
    assert plan["role"] == [0, 0] and plan["task"] == [-1, -1] and plan["reads"] == [[-1], [-1]]
    assert plan["quorum"] == [1]
    assert plan_of("add tier-1 stop", language, team)["active"] == [T, F]
    mixed = plan_of("add tier-1 add tier-0", language, team)
    assert mixed["tier"] == [1, 0]
    assert plan_of("block tier=1", language, team)["tier"] == [1, 1]


LONG = Language(world("workflow", 8)[0], 32)


@pytest.mark.parametrize(("kind", "agents"), [("workflow", 8), ("probe", 2)])
def test_the_program_of_a_row_builds_the_template(kind: str, agents: int) -> None:
    env, team = world(kind, agents)
    language = LONG if env == LONG.env else Language(env, 6)
    templates = TEMPLATES[env.family]
    build = jax.jit(jax.vmap(lambda row: templates.build(env, row, team)))
    expected = build(templates.table())
    plans, valid, _ = run(language, language.rows, team)
    assert valid.all() and len(valid) == len(templates.rows)
    assert all(map(np.array_equal, jax.tree.leaves(plans), jax.tree.leaves(expected)))
    assert np.array_equal(language.from_row(1), language.rows[1])
    # What the language takes for granted.
    members = np.asarray(expected.active)
    assert np.array_equal(members, np.arange(agents) < members.sum(axis=1, keepdims=True))


def test_a_program_that_a_template_does_not_fit_is_refused() -> None:
    with pytest.raises(JaxmasError, match="takes 9 tokens"):
        Language(world("workflow", 8)[0], 8)


# --- against a slow interpreter


class Wrong(Exception):
    """The program is invalid."""


class Slow:
    """Runs one program on lists, word by word; raises ``Wrong``."""

    def __init__(self, language: Language, team: Any):
        self.language, self.team, self.n = language, team, language.env.num_agents
        self.space = language.env.plan_space
        self.members: list[dict[str, Any]] = []
        self.focus, self.quorum = 0, [1] * self.space.num_tasks

    def need(self, condition: bool) -> None:
        if not condition:
            raise Wrong

    def take(self, kind: str) -> Any:
        self.need(bool(self.left))
        number = self.left.pop(0)
        self.need(0 <= number < self.language.size)
        token = self.language.grammar.tokens[number]
        self.need(token.kind == kind)
        return token.word if kind in ("statement", "who", "what", "where") else token.value

    def run(self, tokens: list[int]) -> None:
        self.left, first = list(tokens), True
        while (word := self.take("statement")) != "stop":
            self.need(word != "block" or first)
            getattr(self, f"do_{word}")()
            first = False
        self.need(bool(self.members))

    def do_block(self) -> None:
        templates = TEMPLATES["workflow"]
        row = tuple(self.take(kind) for kind in self.language.grammar.columns)
        plan = templates.build(self.language.env, templates.row(row), self.team)
        fields = {name: np.asarray(getattr(plan, name)).tolist() for name in ("role", "tier", "task", "reads")}
        count = int(plan.active.sum())
        self.members = [{name: values[i] for name, values in fields.items()} for i in range(count)]
        self.quorum = np.asarray(plan.quorum).tolist()

    def do_add(self) -> None:
        self.need(len(self.members) < self.n)
        member = {"role": self.take("role"), "tier": self.take("tier"), "task": -1, "reads": [-1] * self.space.inbox}
        self.members.append(member)
        self.focus = len(self.members) - 1

    def do_double(self) -> None:
        self.need(bool(self.members))
        count = len(self.members)
        copies = min(count, self.n - count)
        for member in self.members[:copies]:
            reads = [r + count if 0 <= r < copies else r for r in member["reads"]]
            self.members.append(member | {"reads": reads})

    def others(self) -> list[int]:
        self.need(len(self.members) >= 2)
        who = self.take("who")
        if who == "all":
            return [i for i in range(len(self.members)) if i != self.focus]
        other = 0 if who == "first" else self.focus - int(who[-1])
        self.need(0 <= other != self.focus)
        return [other]

    def connect(self, reader: int, source: int) -> None:
        inbox = self.members[reader]["reads"] = list(self.members[reader]["reads"])
        if source not in inbox and -1 in inbox:
            inbox[inbox.index(-1)] = source

    def do_read(self) -> None:
        for other in self.others():
            self.connect(self.focus, other)

    def do_send(self) -> None:
        for other in self.others():
            self.connect(other, self.focus)

    def do_assign(self) -> None:
        self.need(bool(self.members))
        what, tasks = self.take("what"), [member["task"] for member in self.members]
        fewest = min(SPARSE, key=lambda task: (tasks.count(task), task))
        self.members[self.focus]["task"] = {"free": -1, "first": 0, "next": fewest}[what]

    def do_quorum(self) -> None:
        where, count = self.take("where"), self.take("count")
        for task in range(self.space.num_tasks):
            if where == "all" or (where == "first") == (task == 0):
                self.quorum[task] = count

    def agrees(self, plan: Any) -> bool:
        """Return whether a plan says the same of the members."""
        count = len(self.members)
        fields = [getattr(plan, name)[i].tolist() == m[name] for i, m in enumerate(self.members) for name in m]
        return (
            all(fields)
            and plan.active.tolist() == [i < count for i in range(self.n)]
            and (plan.quorum.tolist() == self.quorum)
        )


@functools.cache
def samples() -> np.ndarray:
    """Return masked programs, uniform over legal tokens."""
    env, team = world("workflow", 8)
    space = ScriptSpace(env, 8, LONG.length)
    outputs = designing("workflow", 0.0)[1]
    draw = jax.jit(jax.vmap(lambda key: space.sample(outputs, key, team)))
    return np.asarray(draw(jax.random.split(jax.random.key(2), BATCH)))


def mutated() -> np.ndarray:
    """Return legal programs with some tokens drawn anew, some out of the vocabulary."""
    rng = np.random.default_rng(0)
    spots = rng.random(samples().shape) < 1.5 / LONG.length
    return np.where(spots, rng.integers(-2, LONG.size + 2, spots.shape), samples()).astype(np.int32)


def uniform() -> np.ndarray:
    return np.random.default_rng(1).integers(-1, LONG.size + 1, samples().shape).astype(np.int32)


@pytest.mark.parametrize("programs", [samples, mutated, uniform])
def test_any_tokens_are_a_legal_plan(programs: Any) -> None:
    """Or a rejection, whose plan is that of an empty team."""
    tokens, (env, team) = programs(), world("workflow", 8)
    plans, valid, violations = run(LONG, tokens, team)
    assert not violations.any()
    share = {samples: (1, 1), mutated: (0.1, 0.9), uniform: (0, 0.1)}[programs]
    assert share[0] <= valid.mean() <= share[1]
    empty = env.plan_space.project(env.plan_space.empty())[0]
    for rejected, nothing in zip(jax.tree.leaves(plans), jax.tree.leaves(empty), strict=True):
        assert (rejected[~valid] == np.asarray(nothing)).all()


@pytest.mark.parametrize("programs", [samples, mutated, uniform])
def test_the_slow_interpreter_agrees(programs: Any) -> None:
    tokens, (_, team) = programs(), world("workflow", 8)
    plans, valid, _ = run(LONG, tokens, team)
    blocks = np.flatnonzero(tokens[:, 0] == LONG.grammar.find("statement", "block"))
    for i in np.setdiff1d(np.arange(300), blocks[4:]):  # templates are slow to build one by one
        slow = Slow(LONG, team)
        try:
            slow.run(tokens[i].tolist())
        except Wrong:
            assert not valid[i], LONG.text(jnp.array(tokens[i]), team)
            continue
        assert valid[i], LONG.text(jnp.array(tokens[i]), team)
        assert slow.agrees(jax.tree.map(lambda leaf, i=i: leaf[i], plans)), LONG.text(jnp.array(tokens[i]), team)


def test_what_is_compiled_equals_what_is_not() -> None:
    env, team = world("probe", 2)
    language = Language(env, 6)
    program = language.parse("add tier-1 double add tier-0")
    program = program.at[4].set(language.grammar.find("tier", 0))
    programs = [program, language.parse("add tier-1 double")]
    plans, valid, _ = run(language, jnp.stack(programs), team)
    assert valid.tolist() == [False, True]
    with jax.disable_jit():
        plan, accepted = language.run(programs[1], team)
    assert accepted
    assert all(np.array_equal(a, b[1]) for a, b in zip(jax.tree.leaves(plan), jax.tree.leaves(plans), strict=True))


@pytest.mark.parametrize("agents", [1, 2, 16, 256])
def test_masked_programs_are_valid_at_any_number_of_agents(agents: int) -> None:
    """In so few tokens that many programs just fit."""
    env = Workflow(num_agents=agents)
    team = world("workflow", 8)[1]
    shape = (agents, team.agent_tokens.shape[1])
    alike = {"agent_tokens": jnp.zeros(shape), "agent_mask": jnp.ones(agents, bool)}
    team = dataclasses.replace(team, pair_features=jnp.zeros((agents, len(team.task_mask), 0)), **alike)
    space = ScriptSpace(env, 8, 11)
    assert space.language.words == LONG.words
    outputs = designing("workflow", 0.0)[1]
    outputs = outputs | {"place": outputs["place"][:11]}

    @jax.jit
    @jax.vmap
    def draw(key):
        tokens = space.sample(outputs, key, team)
        plan = space.to_plan(tokens, team)
        return tokens, space.valid(tokens, team), plan.active, env.plan_space.project(plan)[1]

    tokens, valid, active, violations = draw(jax.random.split(jax.random.key(3), 256))
    assert valid.all() and not violations.any()
    assert (tokens[:, -1] == space.language.grammar.find("statement", "stop")).all()
    ends = np.argmax(np.asarray(tokens) == space.language.grammar.find("statement", "stop"), axis=1)
    assert ends.max() == 10 and ends.min() < 10
    assert active[:, 0].all() and len(np.unique(active.sum(1))) > min(agents - 1, 3)


# --- printing


def test_a_program_parses_the_way_it_reads() -> None:
    _, team = world("workflow", 8)
    stop = LONG.grammar.find("statement", "stop")
    for tokens in map(jnp.array, samples()[:8]):
        text = LONG.text(tokens, team)
        assert "#" not in text and text.endswith("stop")
        assert LONG.text(tokens) == text
        assert np.array_equal(LONG.parse(text), tokens)
        assert text.count("\n") == sum(LONG.grammar.tokens[t].kind == "statement" for t in tokens[tokens != stop])


@pytest.mark.parametrize(
    ("program", "line"),
    [
        ("stop", "stop  # token 1: too few members"),
        ("quorum all 3 assign", "assign  # token 4: too few members"),
        ("add critic weak read", "read  # token 4: too few members"),
        ("add critic weak add critic weak read back2", "read back2  # token 8: the focus has no such member before it"),
        (CHAIN + "read first", "read first  # token 10: the focus has no such member before it"),
        (CHAIN + "double add", "add  # token 10: no slot is free"),
        (CHAIN + "quorum all 1 " * 7 + "double quorum", "quorum  # token 31: no room is left to end the program"),
    ],
)
def test_an_invalid_program_says_where_and_why(program: str, line: str) -> None:
    _, team = world("workflow", 8)
    assert LONG.text(LONG.parse(program), team).split("\n")[-1] == line


def test_tokens_of_the_wrong_kind_say_so() -> None:
    _, team = world("workflow", 8)
    program = LONG.parse("add critic weak")
    assert LONG.text(program.at[1].set(0), team) == "add block  # token 2: expected a role"
    assert LONG.text(program.at[0].set(99), team) == "<99>  # token 1: expected a statement"
    assert LONG.text(program.at[3].set(0), team).endswith("block  # token 4: expected a statement")


def test_words_that_are_none_are_refused() -> None:
    with pytest.raises(JaxmasError, match="token 3: 'strog' is no tier; did you mean 'strong'"):
        LONG.parse("add critic strog")
    with pytest.raises(JaxmasError, match="36 tokens; it may have 32"):
        LONG.parse("add critic weak " * 12)


# --- as a distribution


@functools.cache
def sequences() -> tuple[np.ndarray, Any, Any]:
    """Return all sequences of five tokens of a probe, the parser at their ends and before each token."""
    env, team = world("probe", 2)
    language = Language(env, 5)
    grid = np.indices((language.size,) * 5).reshape(5, -1).T.astype(np.int32)
    return grid, *jax.jit(jax.vmap(language.trace, in_axes=(0, None)))(jnp.array(grid), team)


@functools.cache
def listed(free: bool) -> dict[str, Any]:
    """Return a space of short programs for a probe, outputs that are not flat, and all programs that it can write."""
    env, team = world("probe", 2)
    space = ScriptSpace(env, 8, 5, free)
    weights, outputs = designing("probe", 0.5)
    grid, ends, states = sequences()
    over = (np.asarray(states.node) == 2) | ~np.asarray(states.valid)
    stop = space.language.grammar.find("statement", "stop")
    valid = np.asarray(ends.valid & (ends.node == 2))
    own = (~over | (grid == stop)).all(axis=1) & (free | valid)
    programs, valid = grid[own], valid[own]
    score = jax.jit(jax.vmap(lambda tokens: space.score(outputs, tokens, team)))
    log_probs, entropies = map(np.asarray, score(jnp.array(programs)))
    return {
        "space": space,
        "team": team,
        "weights": weights,
        "outputs": outputs,
        "programs": programs,
        "valid": valid,
        "probs": np.exp(log_probs.astype(np.float64)),
        "entropies": entropies,
    }


either = pytest.mark.parametrize("free", [False, True])


@either
def test_programs_are_a_distribution(free: bool) -> None:
    parts = listed(free)
    assert len(parts["programs"]) > 10 and parts["valid"].all() != free
    assert parts["probs"].sum() == pytest.approx(1, abs=1e-4) and parts["probs"].std() > 0


@either
def test_the_mean_of_the_entropies_is_that_of_the_programs(free: bool) -> None:
    """By the chain rule, H(program) = E Σ H(token | those before)."""
    probs, entropies = listed(free)["probs"], listed(free)["entropies"]
    assert (probs * entropies).sum() == pytest.approx(-(probs * np.log(probs)).sum(), rel=1e-4)


@either
def test_samples_come_as_often_as_their_probability_says(free: bool) -> None:
    parts, draws = listed(free), 20_000
    space, outputs, team = parts["space"], parts["outputs"], parts["team"]
    sample = jax.jit(jax.vmap(lambda key: space.sample(outputs, key, team)))
    tokens = np.asarray(sample(jax.random.split(jax.random.key(3), draws)))
    base = space.language.size ** np.arange(5)
    known = {code: i for i, code in enumerate((parts["programs"] * base).sum(axis=1).tolist())}
    counts = np.zeros(len(known))
    for code in (tokens * base).sum(axis=1).tolist():
        counts[known[code]] += 1
    probs = parts["probs"]
    assert (np.abs(counts / draws - probs) < 5 * np.sqrt(probs / draws) + 1e-3).all()


@either
def test_the_mode_takes_the_likeliest_token_each_time(free: bool) -> None:
    parts = listed(free)
    space, programs, left = parts["space"], parts["programs"], parts["probs"].copy()
    mode = np.asarray(jax.jit(space.mode)(parts["outputs"], parts["team"]))
    for place in range(5):
        shares = np.bincount(programs[:, place], weights=left, minlength=space.language.size)
        assert mode[place] == shares.argmax()
        left = left * (programs[:, place] == mode[place])
    assert free or space.valid(jnp.array(mode), parts["team"])


@pytest.mark.parametrize(("free", "options"), [(False, (2, 2, 3)), (True, (8, 8, 8))])
def test_an_untrained_designer_is_uniform(free: bool, options: tuple[int, ...]) -> None:
    """Over block and add, two tiers, and add, double and stop; without a mask, over all eight tokens."""
    env, team = world("probe", 2)
    space = ScriptSpace(env, 8, 5, free)
    log_prob, entropy = jax.jit(space.score)(designing("probe", 0.0)[1], space.language.parse("add tier-1 stop"), team)
    assert entropy == pytest.approx(np.log(options).sum(), abs=1e-5)
    assert log_prob == pytest.approx(-np.log(options).sum(), abs=1e-5)


@either
def test_the_score_is_the_sum_of_the_steps(free: bool) -> None:
    """One token after another, as a sampler goes, with what it would know at each."""
    parts = listed(free)
    space, outputs, team = parts["space"], parts["outputs"], parts["team"]
    language = space.language

    @jax.jit
    def step(state, before, past):
        past = past + outputs["past"][state.last]
        logits = next_token(outputs, state.last, before, past, state.node, jnp.minimum(state.place, 4))
        logits = logits if free else jnp.where(language.legal(state), logits, FORBIDDEN)
        return jax.nn.log_softmax(logits), past

    for program, prob in list(zip(parts["programs"], parts["probs"], strict=True))[:: 1 + len(parts["programs"]) // 12]:
        state, before, past, total = language.start(), jnp.int32(language.size), jnp.zeros(8), 0.0
        for token in program:
            log_probs, past = step(state, before, past)
            total += 0.0 if state.over else float(log_probs[token])
            state, before = ADVANCE(language, state, jnp.int32(token), team), state.last
        assert total == pytest.approx(np.log(prob), abs=1e-4)


ADVANCE = jax.jit(Language.advance, static_argnums=0)


@either
def test_the_gradient_is_finite_and_reaches_every_weight(free: bool) -> None:
    parts = listed(free)
    space, team = parts["space"], parts["team"]
    programs = jnp.array(parts["programs"][:: 1 + len(parts["programs"]) // 64])

    @jax.jit
    @jax.grad
    def slope(weights):
        outputs, value = space.network.apply(weights, team)
        log_probs, entropies = jax.vmap(lambda tokens: space.score(outputs, tokens, team))(programs)
        return jnp.mean(log_probs * jnp.arange(len(programs))) + jnp.mean(entropies) + (value - 1) ** 2

    gradient = jax.tree.leaves_with_path(slope(parts["weights"]))
    assert all(np.isfinite(leaf).all() for _, leaf in gradient)
    silent = [jax.tree_util.keystr(path) for path, leaf in gradient if not np.asarray(leaf).any()]
    assert not [path for path in silent if "TeamEncoder" not in path], silent  # a probe's agents show nothing
    assert len(silent) <= 3, silent


def test_both_spaces_are_registered() -> None:
    env, team = world("probe", 2)
    for name, free in (("script", False), ("script-free", True)):
        space = DESIGN_SPACES[name](env, length=6)
        assert (space.name, space.free, space.language) == (name, free, Language(env, 6))
        assert DESIGN_SPACES[name](env).length == 24
        assert hash(space) == hash(DESIGN_SPACES[name](env, length=6))
        plans, valid, _ = run(space.language, jax.vmap(space.from_template)(jnp.arange(2)), team)
        assert valid.all() and plans.tier.tolist() == [[0, 0], [1, 1]]
