"""Scripts: a small language of coordination programs, with its grammar, interpreter and printer.

A program is a fixed number of tokens. It may start from a template of its environment (``block``), and then adds
members, lets them read each other, gives out tasks and quorums, or doubles the team; ``stop`` ends it, and what follows
is ignored. Members fill the first slots, in the order in which they came; the one that was added last, or slot 0 after
a block, is the focus. The vocabulary depends on the environment's family and on how many roles, tiers and answers
there are, never on the number of agents.

    block COLUMN=VALUE...   only as the first statement: the team that the template with these column values builds
    add ROLE TIER           one more member, who chooses its task and reads nobody; it becomes the focus
    read WHO, send WHO      the focus reads the other, or the other way round; no change where the inbox is full
    assign WHAT             the focus chooses its task, has the first one, or the present one with fewest members
    quorum WHERE COUNT      how many answers tasks should get
    double                  copy the members, in slot order, to the free slots, as far as these last; a copy reads the
                            copies of those whom the copied member reads, or those themselves where they have none
    stop                    end the program; the team must not be empty
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from jaxmas.errors import did_you_mean, refuse
from jaxmas.plans import Plan, PlanSpace
from jaxmas.pytrees import pytree
from jaxmas.registry import TEMPLATES
from jaxmas.types import Environment, TeamObservation

FIRST, NEXT, DONE = 0, 1, 2
"""The automaton's states between statements: before the first one, before another, after ``stop``."""
STATEMENT = "statement"
EVERYONE = -1
"""The value of the WHO that is all others; the rest are 0 (slot 0), or how many members before the focus."""
NEEDS = {
    "block": (0, 0, 0),
    "add": (0, 1, 0),
    "double": (1, 0, 0),
    "stop": (1, 0, 0),
    "read": (2, 0, 0),
    "send": (2, 0, 0),
    "assign": (1, 0, 0),
    "quorum": (0, 0, 0),
}
"""At least so many members, free slots, and members before the focus."""
REASONS = (
    "expected a {kind}",
    "too few members",
    "no slot is free",
    "the focus has no such member before it",
    "no room is left to end the program",
)
"""Why a token may be illegal, in the order of ``Language.checks``."""


class Token(NamedTuple):
    """A word of the language."""

    kind: str
    """``statement``, the kind of value that it is, or a template's column with ``=``."""
    word: str
    value: int = 0
    needs: tuple[int, int, int] = (0, 0, 0)
    """As in ``NEEDS``."""


@dataclasses.dataclass(frozen=True, eq=False)
class Grammar:
    """A language as tables: its tokens and the automaton that says which of them may follow."""

    tokens: tuple[Token, ...]
    nodes: tuple[str, ...]
    """The automaton's states: the three between statements, then ``keyword kind`` where a value is expected."""
    follow: np.ndarray
    """The state after each token ``[nodes, tokens]``; -1 where the token is not expected."""
    rest: np.ndarray
    """How many more tokens end a program ``[nodes, 2]``; the second column holds while there is no member."""
    columns: tuple[str, ...]
    """The kinds of values that ``block`` takes."""

    @property
    def values(self) -> Int[Array, "tokens"]:
        """Return what the tokens stand for; of keywords it is 0."""
        return jnp.array([token.value for token in self.tokens])

    @property
    def closing(self) -> int:
        """Return the state in which the next token completes a block."""
        return self.node(f"block {self.columns[-1]}")

    def find(self, kind: str, wanted: str | int) -> int:
        """Return the number of the token with this word, or value; -1 where there is none."""
        field = 1 if isinstance(wanted, str) else 2
        return next((i for i, token in enumerate(self.tokens) if token[0] == kind and token[field] == wanted), -1)

    def node(self, name: str) -> int:
        """Return the number of a state; -1, which no program is in, where there is none."""
        return self.nodes.index(name) if name in self.nodes else -1


def _statements(space: PlanSpace, columns: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Return which kinds of values follow which keyword; what the plans do not use does not exist."""
    choices = {"role": space.num_roles, "tier": space.num_tiers}
    member = tuple(kind for kind, count in choices.items() if kind in space.fields and count > 1)
    every = {"block": columns, "add": member, "double": (), "stop": ()}
    every |= {"read": ("who",), "send": ("who",)} if "reads" in space.fields else {}
    every |= {"assign": ("what",)} if "task" in space.fields else {}
    every |= {"quorum": ("where", "count")} if "quorum" in space.fields else {}
    return every


def _values(env: Environment, parts: dict[str, tuple[str, ...]]) -> list[Token]:
    """Return the tokens of all values; those without a name are called by their number."""
    space, templates = env.plan_space, TEMPLATES[env.family]
    names = templates.names(env) if hasattr(templates, "names") else {}

    def named(kind: str, values: Any, words: tuple[str, ...], unnamed: str) -> list[Token]:
        return [Token(kind, words[v] if v < len(words) else f"{unnamed}{v}", v) for v in values]

    tokens = []
    for (part, words), column in zip(parts.items(), zip(*templates.rows, strict=True), strict=True):
        values = named("", sorted(set(column)), words, "")
        tokens += [Token(f"{part}=", f"{part}={word}", value) for _, word, value, _ in values]
    for kind, count in (("role", space.num_roles), ("tier", space.num_tiers)):
        tokens += named(kind, range(count), names.get(kind, ()), f"{kind}-")
    tokens += [Token("who", "first", 0, (2, 0, 1))]
    tokens += [Token("who", f"back{k}", k, (2, 0, k)) for k in (1, 2, 3)]
    tokens += [Token("who", "all", EVERYONE, (2, 0, 0))]
    tokens += named("what", range(3), ("free", "first", "next"), "")
    tokens += named("where", range(3), ("all", "first", "rest"), "")
    return tokens + named("count", range(1, space.max_quorum + 1), (), "")


@functools.cache
def grammar(env: Environment) -> Grammar:
    """Return the tables of an environment's language."""
    templates = TEMPLATES[env.family]
    unnamed: dict[str, tuple[str, ...]] = {f"column-{i}": () for i in range(len(templates.rows[0]))}
    parts = getattr(templates, "parts", unnamed)
    columns = tuple(f"{part}=" for part in parts)
    statements = _statements(env.plan_space, columns)
    used = {kind for kinds in statements.values() for kind in kinds}
    tokens = [Token(STATEMENT, keyword, 0, NEEDS[keyword]) for keyword in statements]
    tokens += [token for token in _values(env, parts) if token.kind in used]
    nodes = ("first", "next", "done", *(f"{keyword} {kind}" for keyword in statements for kind in statements[keyword]))
    follow, rest = _automaton(statements, [token.kind for token in tokens], nodes)
    return Grammar(tuple(tokens), nodes, follow, rest, columns)


def _automaton(
    statements: dict[str, tuple[str, ...]], kinds: list[str], nodes: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the tables ``follow`` and ``rest`` of a grammar; ``kinds`` are those of its tokens, keywords first."""
    follow = np.full((len(nodes), len(kinds)), -1, np.int32)
    rest = np.zeros((len(nodes), 2), np.int32)
    member = 1 + len(statements["add"])
    rest[[FIRST, NEXT]] = 1, 1 + member
    for number, (keyword, values) in enumerate(statements.items()):
        path = [nodes.index(f"{keyword} {value}") for value in values] + [DONE if keyword == "stop" else NEXT]
        follow[FIRST, number] = path[0]
        follow[NEXT, number] = -1 if keyword == "block" else path[0]
        for place, value in enumerate(values):
            follow[path[place], [kind == value for kind in kinds]] = path[place + 1]
            rest[path[place]] = len(values) - place + np.array([1, 1 + member * (keyword == "quorum")])
    return follow, rest


@pytree
class Reading:
    """Where the parser of a program is: no more than says which tokens are legal next."""

    node: Int[Array, ""]
    """The automaton's state."""
    place: Int[Array, ""]
    """How many tokens were read; an illegal one, and what follows the end, is not."""
    members: Int[Array, ""]
    focus: Int[Array, ""]
    last: Int[Array, ""]
    """The token before; the size of the vocabulary where there is none."""
    row: Int[Array, "columns"]
    """The template row of the block so far."""
    valid: Bool[Array, ""]

    @property
    def over(self) -> Bool[Array, ""]:
        """Return whether the program has ended, by ``stop`` or by an illegal token."""
        return (self.node == DONE) | ~self.valid


@dataclasses.dataclass(frozen=True)
class Language:
    """The programs of a given length for an environment whose templates fill the first slots."""

    env: Environment
    length: int = 24

    def __post_init__(self) -> None:
        """Refuse a length that a template does not fit."""
        least = len(self.grammar.columns) + 2
        refuse(self.length < least, f"length is {self.length}; a template of {self.env.family} takes {least} tokens")

    @property
    def grammar(self) -> Grammar:
        """Return the tables of the language."""
        return grammar(self.env)

    @property
    def words(self) -> tuple[str, ...]:
        """Return the tokens' names; ``first`` and ``all`` stand for one of each kind."""
        return tuple(token.word for token in self.grammar.tokens)

    @property
    def size(self) -> int:
        """Return the size of the vocabulary."""
        return len(self.grammar.tokens)

    @property
    def rows(self) -> Int[Array, "templates length"]:
        """Return the programs that are one template each."""
        return jnp.array(_row_programs(self))

    def from_row(self, row: int | Int[Array, ""]) -> Int[Array, "length"]:
        """Return the program that is a template of the environment, by its index."""
        return self.rows[row]

    def start(self) -> Reading:
        """Return the parser before the first token."""
        zero = jnp.int32(0)
        row = jnp.zeros(len(self.grammar.columns), jnp.int32)
        return Reading(jnp.int32(FIRST), zero, zero, zero, jnp.int32(self.size), row, jnp.array(True))

    def checks(self, state: Reading, tokens: Int[Array, "*s"]) -> Bool[Array, "*s reasons"]:
        """Return whether tokens may come next, by each of ``REASONS``."""
        known = (tokens >= 0) & (tokens < self.size)
        token = jnp.clip(tokens, 0, self.size - 1)
        after = jnp.array(self.grammar.follow)[state.node, token]
        brings = (token == self.grammar.find(STATEMENT, "add")) | (state.node == self.grammar.closing)
        empty = (state.members == 0) & ~brings
        rest = jnp.array(self.grammar.rest)[after, empty.astype(jnp.int32)]
        room = state.place + 1 + rest <= self.length
        needs = jnp.array([token.needs for token in self.grammar.tokens])[token]
        have = jnp.stack([state.members, self.env.num_agents - state.members, state.focus])
        return jnp.concatenate([(known & (after >= 0))[..., None], have >= needs, room[..., None]], axis=-1)

    def legal(self, state: Reading) -> Bool[Array, "tokens"]:
        """Return which tokens may come next; after ``stop`` it is ``stop`` alone."""
        legal = jnp.all(self.checks(state, jnp.arange(self.size)), axis=-1)
        return jnp.where(state.over, jnp.arange(self.size) == self.grammar.find(STATEMENT, "stop"), legal)

    def advance(self, state: Reading, token: Int[Array, ""], team: TeamObservation) -> Reading:
        """Read one token; an illegal one makes the program invalid, and it stays where it was."""
        return self._advance(state, token, jnp.sum(self._build(self._row(state, token), team).active))

    def _advance(self, state: Reading, token: Int[Array, ""], block: Int[Array, ""]) -> Reading:
        """Read one token; ``block`` is how many members a block has that is complete with it."""
        legal = jnp.all(self.checks(state, token))
        rejected = dataclasses.replace(state, valid=state.valid & (legal | state.over))
        goes_on = legal & ~state.over
        return jax.tree.map(lambda new, old: jnp.where(goes_on, new, old), self._after(state, token, block), rejected)

    def _after(self, state: Reading, token: Int[Array, ""], block: Int[Array, ""]) -> Reading:
        """Return the parser after a token that is taken to be legal."""
        tables, members = self.grammar, state.members
        token = jnp.clip(token, 0, self.size - 1)
        add, double = (token == tables.find(STATEMENT, keyword) for keyword in ("add", "double"))
        sizes = [block, members + 1, jnp.minimum(2 * members, self.env.num_agents)]
        return Reading(
            node=jnp.array(tables.follow)[state.node, token],
            place=state.place + 1,
            members=jnp.select([state.node == tables.closing, add, double], sizes, members).astype(jnp.int32),
            focus=jnp.where(add, members, state.focus),
            last=token.astype(jnp.int32),
            row=self._row(state, token),
            valid=state.valid,
        )

    def _row(self, state: Reading, token: Int[Array, ""]) -> Int[Array, "columns"]:
        """Return the row of a block with one more token; a block begins a program, so the place says which column."""
        value = self.grammar.values[jnp.clip(token, 0, self.size - 1)]
        return jnp.where(jnp.arange(len(self.grammar.columns)) == state.place - 1, value, state.row).astype(jnp.int32)

    def trace(self, tokens: Int[Array, "length"], team: TeamObservation) -> tuple[Reading, Reading]:
        """Return the parser after a whole program, and stacked before each of its tokens."""
        block = jnp.sum(self._first_plan(tokens, team).active)
        return jax.lax.scan(lambda state, token: (self._advance(state, token, block), state), self.start(), tokens)

    def accepts(self, end: Reading) -> Bool[Array, ""]:
        """Return whether a program that was read to its end is valid."""
        return end.valid & (end.node == DONE)

    def run(self, tokens: Int[Array, "length"], team: TeamObservation) -> tuple[Plan, Bool[Array, ""]]:
        """Return a program's plan and whether it is valid; the plan of an invalid one is the projected empty one."""

        def step(carry: tuple[Reading, Plan], token: Int[Array, ""]) -> tuple[tuple[Reading, Plan], None]:
            state, plan = carry
            after = self._advance(state, token, block)
            return (after, self._perform(state, after, token, plan, team)), None

        first = self._first_plan(tokens, team)
        block = jnp.sum(first.active)
        (end, plan), _ = jax.lax.scan(step, (self.start(), first), tokens)
        valid, space = self.accepts(end), self.env.plan_space
        plan = dataclasses.replace(plan, active=jnp.arange(self.env.num_agents) < end.members)
        plan = jax.tree.map(lambda made, empty: jnp.where(valid, made, empty), plan, space.empty())
        return space.project(plan)[0], valid

    def _build(self, row: Int[Array, "columns"], team: TeamObservation) -> Plan:
        """Build the template of a row of numbers."""
        templates = TEMPLATES[self.env.family]
        return templates.build(self.env, jax.tree.unflatten(jax.tree.structure(templates.table()), list(row)), team)

    def _first_plan(self, tokens: Int[Array, "length"], team: TeamObservation) -> Plan:
        """Return what the other statements change: the plan of the block, or the empty one."""
        block = tokens[0] == self.grammar.find(STATEMENT, "block")
        row = self.grammar.values[jnp.clip(tokens[1 : 1 + len(self.grammar.columns)], 0, self.size - 1)]
        built, empty = self._build(row, team), self.env.plan_space.empty()
        return jax.tree.map(lambda built, empty: jnp.where(block, built, empty), built, empty)

    def _perform(
        self, state: Reading, after: Reading, token: Int[Array, ""], plan: Plan, team: TeamObservation
    ) -> Plan:
        """Carry out a token; what becomes of the plan of an invalid program does not matter."""
        tables, slot = self.grammar, jnp.arange(self.env.num_agents)
        value, before = (tables.values[jnp.clip(each, 0, self.size - 1)] for each in (token, state.last))
        at = {name: state.node == number for number, name in enumerate(tables.nodes)}
        between, never = at["first"] | at["next"], jnp.array(False)
        add = between & (token == tables.find(STATEMENT, "add"))
        double = between & (token == tables.find(STATEMENT, "double"))
        plan = _copied(plan, state.members, jnp.where(double, after.members, state.members))
        here = slot == after.focus

        def put(field: Array, fresh: int, now: Bool[Array, ""], new: Int[Array, ""]) -> Int[Array, "num_agents"]:
            return jnp.where(here & (add | now), jnp.where(add, fresh, new), field).astype(jnp.int32)

        tasks = jnp.arange(self.env.plan_space.num_tasks)
        meant = jnp.stack([tasks >= 0, tasks == 0, tasks > 0])[jnp.clip(before, 0, 2)]
        reads = jnp.where((here & add)[:, None], -1, plan.reads)
        return Plan(
            active=plan.active,
            role=put(plan.role, 0, at.get("add role", never), value),
            tier=put(plan.tier, 0, at.get("add tier", never), value),
            task=put(plan.task, -1, at.get("assign what", never), self._task(value, plan.task, state, team)),
            reads=self._connected(reads, state, value) if "read who" in at else reads,
            quorum=jnp.where(meant & at.get("quorum count", never), value, plan.quorum),
        )

    def _task(
        self, what: Int[Array, ""], task: Int[Array, "num_agents"], state: Reading, team: TeamObservation
    ) -> Int[Array, ""]:
        """Return the task that WHAT stands for: none, the first, or the present one with fewest members."""
        assigned = (jnp.arange(len(task)) < state.members) & (task >= 0)
        count = jnp.zeros(len(team.task_mask), jnp.int32).at[jnp.where(assigned, task, len(team.task_mask))].add(1)
        fewest = jnp.argmin(jnp.where(team.task_mask, count, len(task) + 1))
        fewest = jnp.where(team.task_mask.any(), fewest, -1)
        return jnp.stack([-1, 0, fewest])[jnp.clip(what, 0, 2)].astype(jnp.int32)

    def _connected(
        self, reads: Int[Array, "num_agents inbox"], state: Reading, who: Int[Array, ""]
    ) -> Int[Array, "num_agents inbox"]:
        """Let the focus read WHO, or WHO the focus, if this is what the statement says."""
        slot, focus, everyone = jnp.arange(len(reads)), state.focus, who == EVERYONE
        reading, sending = (state.node == self.grammar.node(f"{keyword} who") for keyword in ("read", "send"))
        other = jnp.where(who == 0, 0, focus - who)
        others = jnp.where(everyone, (slot < state.members) & (slot != focus), slot == other)
        readers = jnp.where(sending, others, reading & ~everyone & (slot == focus))
        reads = _appended(reads, readers, jnp.where(sending, focus, other))
        row = _filled(reads[focus], state.members, focus)
        return reads.at[focus].set(jnp.where(reading & everyone, row, reads[focus]))

    def parse(self, text: str) -> Int[Array, "length"]:
        """Return the program that a text says; one that is too long or no word of the language is an error."""
        tables, node, tokens = self.grammar, FIRST, list[int]()
        for word in text.split():
            known = {tables.tokens[i].word: int(i) for i in np.flatnonzero(tables.follow[node] >= 0)}
            kind = _expected(tables, node)
            refuse(word not in known, f"token {len(tokens) + 1}: {word!r} is no {kind}; {did_you_mean(word, known)}")
            tokens.append(known[word])
            node = int(tables.follow[node, known[word]])
        refuse(len(tokens) > self.length, f"the program has {len(tokens)} tokens; it may have {self.length}")
        return jnp.array(tokens + [tables.find(STATEMENT, "stop")] * (self.length - len(tokens)), jnp.int32)

    def text(self, tokens: Int[Array, "length"], team: TeamObservation | None = None) -> str:
        """Print a program, one statement a line, up to its end or to the token that is illegal, and why it is.

        How many members a block has depends on the query: without a ``team``, what follows it is not checked for that.
        """
        tables, state, text = self.grammar, self.start(), ""
        guess = team is None and int(tokens[0]) == tables.find(STATEMENT, "block")
        for place, number in enumerate(np.asarray(tokens)):
            token = tables.tokens[number] if 0 <= number < self.size else Token("", f"<{number}>")
            checks, after = _peek(self, state, jnp.int32(number), team)
            wrong = [i for i, passed in enumerate(np.asarray(checks)) if not passed and not (guess and 0 < i < 4)]
            text += ("\n" if int(state.node) == NEXT else " ") + token.word
            if wrong:
                reason = REASONS[wrong[0]].format(kind=_expected(tables, int(state.node)))
                return f"{text}  # token {place + 1}: {reason}".strip()
            state = after
            if int(state.node) == DONE:
                break
        return text.strip()


def _expected(tables: Grammar, node: int) -> str:
    """Return which kind of word comes next."""
    return tables.nodes[node].split()[-1].rstrip("=") if node > DONE else STATEMENT


@functools.partial(jax.jit, static_argnums=0)
def _peek(
    language: Language, state: Reading, token: Int[Array, ""], team: TeamObservation | None
) -> tuple[Bool[Array, "reasons"], Reading]:
    """Return the checks of a token, and the parser after it as if it were legal."""
    block = 1 if team is None else jnp.sum(language._build(language._row(state, token), team).active)
    return language.checks(state, token), language._after(state, token, jnp.int32(block))


@functools.cache
def _row_programs(language: Language) -> np.ndarray:
    """Return ``block VALUE... stop`` for every row of the templates ``[templates, length]``."""
    tables = language.grammar
    programs = np.full((len(TEMPLATES[language.env.family].rows), language.length), tables.find(STATEMENT, "stop"))
    programs[:, 0] = tables.find(STATEMENT, "block")
    for program, row in zip(programs, TEMPLATES[language.env.family].rows, strict=True):
        program[1 : 1 + len(row)] = [tables.find(kind, v) for kind, v in zip(tables.columns, row, strict=True)]
    return programs.astype(np.int32)


def _copied(plan: Plan, members: Int[Array, ""], after: Int[Array, ""]) -> Plan:
    """Copy the first members to the slots from ``members`` up to ``after``."""
    slot = jnp.arange(len(plan.role))
    source = jnp.maximum(slot - members, 0)
    copy = (slot >= members) & (slot < after)
    reads = plan.reads[source]
    reads = jnp.where((reads >= 0) & (reads < after - members), reads + members, reads)
    return dataclasses.replace(
        plan,
        role=jnp.where(copy, plan.role[source], plan.role),
        tier=jnp.where(copy, plan.tier[source], plan.tier),
        task=jnp.where(copy, plan.task[source], plan.task),
        reads=jnp.where(copy[:, None], reads, plan.reads),
    )


def _appended(
    reads: Int[Array, "num_agents inbox"], readers: Bool[Array, "num_agents"], source: Int[Array, ""]
) -> Int[Array, "num_agents inbox"]:
    """Let some agents read one more, where they do not yet and have room: in their first free place."""
    free = reads < 0
    first = free & (jnp.arange(reads.shape[1]) == jnp.argmax(free, axis=1)[:, None])
    known = jnp.any(reads == source, axis=1)
    return jnp.where(first & (readers & ~known)[:, None], source, reads)


def _filled(row: Int[Array, "inbox"], members: Int[Array, ""], reader: Int[Array, ""]) -> Int[Array, "inbox"]:
    """Let one agent read all members in slot order, as far as there is room.

    Of the first ``2 inbox + 1`` slots it reads at most ``inbox`` already and is one, so that the others fill it.
    """
    slot = jnp.arange(2 * len(row) + 1)
    wanted = (slot < members) & (slot != reader) & ~jnp.any(row[:, None] == slot, axis=0)
    free = row < 0
    match = free[:, None] & wanted & (jnp.cumsum(free)[:, None] == jnp.cumsum(wanted))
    return jnp.where(match.any(axis=1), jnp.sum(match * slot, axis=1), row).astype(jnp.int32)
