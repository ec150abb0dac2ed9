"""The script design space: a designer that writes a program token by token, without recurrence.

Where a program ends, by ``stop`` or by its first illegal token, its probability ends too. All tokens of a program that
is given are scored at once; only sampling goes from one to the next.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jaxmas.networks import MLP, TeamEncoder
from jaxmas.plans import Plan
from jaxmas.registry import DESIGN_SPACES, TEMPLATES
from jaxmas.spaces.base import FORBIDDEN, Decision
from jaxmas.spaces.language import STATEMENT, Language, Reading
from jaxmas.types import Environment, TeamObservation


class ScriptNetwork(nn.Module):
    """Team observation to the context of a program, with the weights of the decoder, and a value."""

    size: int
    """Tokens of the vocabulary."""
    nodes: int
    """States of the parser."""
    length: int
    width: int

    @nn.compact
    def __call__(self, team: TeamObservation) -> tuple[dict[str, Array], Float[Array, ""]]:
        """Return what ``next_token`` needs and the value of the query."""
        summary, _, _ = TeamEncoder(self.width)(team)
        rows = {"last": self.size + 1, "before": self.size + 1, "past": self.size + 1}
        rows |= {"node": self.nodes, "place": self.length}
        spread = nn.initializers.normal(len(rows) ** -0.5)
        decoder = {name: self.param(name, spread, (count, self.width)) for name, count in rows.items()}
        for layer, outputs in (("hidden", self.width), ("logits", self.size)):
            start = nn.initializers.he_normal() if layer == "hidden" else nn.initializers.zeros
            decoder[f"{layer}_kernel"] = self.param(f"{layer}_kernel", start, (self.width, outputs))
            decoder[f"{layer}_bias"] = self.param(f"{layer}_bias", nn.initializers.zeros, (outputs,))
        decoder["context"] = nn.Dense(self.width, name="context")(summary)
        return decoder, MLP((self.width,), 1)(summary)[0]


def next_token(
    outputs: dict[str, Array],
    last: Int[Array, "*s"],
    before: Int[Array, "*s"],
    past: Float[Array, "*s width"],
    node: Int[Array, "*s"],
    place: Int[Array, "*s"],
) -> Float[Array, "*s tokens"]:
    """Return logits from the two tokens before, the sum of all before, the parser's state and the place."""
    hidden = outputs["context"] + outputs["last"][last] + outputs["before"][before] + outputs["node"][node]
    hidden = nn.relu(hidden + outputs["place"][place] + past / jnp.sqrt(len(outputs["place"])))
    hidden = nn.relu(hidden @ outputs["hidden_kernel"] + outputs["hidden_bias"])
    return hidden @ outputs["logits_kernel"] + outputs["logits_bias"]


@dataclasses.dataclass(frozen=True)
class ScriptSpace:
    """Programs of a small language, one token after another; illegal tokens have no probability unless ``free``."""

    env: Environment
    width: int = 128
    length: int = 24
    free: bool = False
    """Leave every token possible: the designer has to learn the grammar, and a wrong program is the empty plan."""

    @property
    def name(self) -> str:
        """Return the registered name."""
        return "script-free" if self.free else "script"

    @property
    def language(self) -> Language:
        """Return the language of the programs."""
        return Language(self.env, self.length)

    @property
    def network(self) -> ScriptNetwork:
        """Return the network that parametrises the choice."""
        language = self.language
        return ScriptNetwork(language.size, len(language.grammar.nodes), self.length, self.width)

    def sample(self, outputs: dict[str, Array], key: PRNGKeyArray, team: TeamObservation) -> Int[Array, "length"]:
        """Draw a program."""
        return self._write(outputs, jax.random.gumbel(key, (self.length, self.language.size)), team)

    def mode(self, outputs: dict[str, Array], team: TeamObservation) -> Int[Array, "length"]:
        """Return the program that takes the likeliest token each time."""
        return self._write(outputs, jnp.zeros((self.length, self.language.size)), team)

    def score(
        self, outputs: dict[str, Array], choice: Int[Array, "length"], team: TeamObservation
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Return a program's log-probability, and the sum of the entropies of its tokens given those before."""
        log_probs, states = self._law(outputs, choice, team)
        tokens = jnp.clip(choice, 0, self.language.size - 1)
        taken = jnp.take_along_axis(log_probs, tokens[:, None], axis=-1)[:, 0]
        entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)
        counts = ~jax.vmap(lambda state: state.over)(states)
        return jnp.sum(jnp.where(counts, taken, 0.0)), jnp.sum(jnp.where(counts, entropy, 0.0))

    def propose(self, key: PRNGKeyArray, team: TeamObservation) -> Int[Array, "length"]:
        """Draw a template, and change its program as often as not."""
        row_key, vary_key, side_key = jax.random.split(key, 3)
        rows = len(TEMPLATES[self.env.family].rows)
        program = self.from_template(jax.random.randint(row_key, (), 0, rows))
        return jnp.where(jax.random.bernoulli(side_key), self.vary(vary_key, program, team), program)

    def vary(self, key: PRNGKeyArray, choice: Int[Array, "length"], team: TeamObservation) -> Int[Array, "length"]:
        """Keep a program up to a random place, put one random legal token there, and go on as before where it fits.

        Where it does not, the rest is drawn from the legal tokens.
        """
        place_key, draw_key = jax.random.split(key)
        language = self.language
        stop = language.grammar.find(STATEMENT, "stop")
        written = jnp.maximum(jnp.sum(jnp.cumsum(choice == stop) == 0) + 1, 1)
        place = jax.random.randint(place_key, (), 0, jnp.minimum(written, self.length))
        draws = jax.random.gumbel(draw_key, (self.length, language.size))

        def write(state: Reading, inputs: tuple) -> tuple[Reading, Int[Array, ""]]:
            index, draw, old = inputs
            legal = language.legal(state)
            keeps = (index != place) & legal[jnp.clip(old, 0, language.size - 1)]
            token = jnp.where(keeps, old, jnp.argmax(jnp.where(legal, draw, FORBIDDEN)))
            token = jnp.where(state.over, stop, token).astype(jnp.int32)
            return language.advance(state, token, team), token

        return jax.lax.scan(write, language.start(), (jnp.arange(self.length), draws, choice))[1]

    def explain(self, outputs: dict[str, Array], choice: Int[Array, "length"], team: TeamObservation) -> list[Decision]:
        """Return every token with its probability given those before, up to the end of the program."""
        log_probs, states = self._law(outputs, choice, team)
        written = int(jnp.sum(~jax.vmap(lambda state: state.over)(states)))
        words = self.language.words
        tokens = [int(token) for token in jnp.clip(choice[:written], 0, self.language.size - 1)]
        return [
            Decision(f"token {place + 1}", words[token], float(jnp.exp(log_probs[place, token])))
            for place, token in enumerate(tokens)
        ]

    def to_plan(self, choice: Int[Array, "length"], team: TeamObservation) -> Plan:
        """Run a program."""
        return self.language.run(choice, team)[0]

    def _law(
        self, outputs: dict[str, Array], choice: Int[Array, "length"], team: TeamObservation
    ) -> tuple[Float[Array, "length tokens"], Reading]:
        """Return the log-probabilities of all tokens at each place given those before, and the parser's states."""
        size = self.language.size
        _, states = self.language.trace(choice, team)
        last = jnp.concatenate([jnp.array([size]), jnp.clip(choice, 0, size - 1)[:-1]])
        before = jnp.concatenate([jnp.array([size]), last[:-1]])
        past = jnp.cumsum(outputs["past"][last], axis=0)
        logits = next_token(outputs, last, before, past, states.node, jnp.arange(self.length))
        return jax.nn.log_softmax(self._masked(logits, jax.vmap(self.language.legal)(states))), states

    def valid(self, choice: Int[Array, "length"], team: TeamObservation) -> Bool[Array, ""]:
        """Return whether a program is one; otherwise its plan is the projected empty one."""
        return self.language.accepts(self.language.trace(choice, team)[0])

    def from_template(self, row: int | Int[Array, ""]) -> Int[Array, "length"]:
        """Return the program that is a template of the environment, by its index."""
        return self.language.from_row(row)

    def _masked(self, logits: Float[Array, "*s tokens"], legal: Bool[Array, "*s tokens"]) -> Float[Array, "*s tokens"]:
        return logits if self.free else jnp.where(legal, logits, FORBIDDEN)

    def _write(
        self, outputs: dict[str, Array], noise: Float[Array, "length tokens"], team: TeamObservation
    ) -> Int[Array, "length"]:
        """Take the token with the highest sum of logit and noise, one after another; ``stop`` follows the end."""
        language = self.language
        stop = language.grammar.find(STATEMENT, "stop")

        def write(carry: tuple[Reading, Any, Any], noise: Float[Array, "tokens"]) -> tuple[tuple, Int[Array, ""]]:
            state, before, past = carry
            past = past + outputs["past"][state.last]
            place = jnp.minimum(state.place, self.length - 1)
            logits = self._masked(
                next_token(outputs, state.last, before, past, state.node, place), language.legal(state)
            )
            token = jnp.where(state.over, stop, jnp.argmax(logits + noise)).astype(jnp.int32)
            return (language.advance(state, token, team), state.last, past), token

        start = (language.start(), jnp.int32(language.size), jnp.zeros(self.width))
        return jax.lax.scan(write, start, noise)[1]


DESIGN_SPACES.add("script", ScriptSpace, "a program of a small language, written token by token")
DESIGN_SPACES.add(
    "script-free", functools.partial(ScriptSpace, free=True), "the same without a mask: the grammar has to be learnt"
)
