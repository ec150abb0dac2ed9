"""MAKER-style (simulated): maximal decomposition, first-to-ahead-by-k voting, red-flagged answers resampled.

| | MAKER (arXiv 2511.09030) | here |
|---|---|---|
| step | a call of a language model, parsed | an attempt, right by chance; wrong answers fall on three others |
| red flags | answers too long or badly formatted | wrong and right ones by a chance of their own |
| error | estimated from calls on a sample of steps | the tier's, times the difficulty that the designer sees |
| margin | least k for the wanted success, one model | the same, and the tier with which it is cheapest |
| votes | one after another, or a first k at once | one after another; ``four-at-once`` pays four each round |

The formulas are the gambler's ruin; with wrong answers that are spread over several candidates they are bounds.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from jaxmas.environments import longchain
from jaxmas.environments.longchain import MAX_MARGIN, TIERS, Longchain, LongchainParams
from jaxmas.plans import Plan
from jaxmas.policies import TemplatePolicy
from jaxmas.pytrees import pytree
from jaxmas.registry import STRATEGIES, TEMPLATES
from jaxmas.types import Environment, MetaPolicy, TeamObservation


@pytree
class Race:
    """A race of two answers: the chances that an attempt is a vote for the right one, or for the wrong one."""

    right: Any
    wrong: Any

    @property
    def odds(self) -> Any:
        """Return ρ = wrong / right."""
        return self.wrong / self.right

    def success(self, margin: Any) -> Any:
        """Return the chance that the right answer is ``margin`` ahead first: 1 / (1 + ρ^k) (MAKER, section 3)."""
        return 1 / (1 + self.odds**margin)

    def attempts(self, margin: Any) -> Any:
        """Return the attempts until then on average, red-flagged ones included: k (1 − ρ^k) / ((r − w)(1 + ρ^k)).

        Feller 1968, volume 1, XIV.3: the duration of a gambler's ruin, whose pauses are the red flags.
        """
        lost = self.odds**margin
        return margin * (1 - lost) / ((self.right - self.wrong) * (1 + lost))

    def chain(self, margin: Any, length: int) -> Any:
        """Return the chance that all of so many steps are right."""
        return jnp.exp(-length * jnp.log1p(self.odds**margin))

    def least_margin(self, length: int, wanted: float) -> Any:
        """Return the least k with ``chain(k) ≥ t``: ⌈ln(t^(−1/s) − 1) / ln ρ⌉ (MAKER, eq. 14, one step per call)."""
        # t^(−1/s) − 1 is lost to rounding where s is large.
        needed = math.log(math.expm1(-math.log(wanted) / length))
        return jnp.maximum(jnp.ceil(needed / jnp.log(self.odds)), 1).astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class MakerPolicy:
    """Takes for every query the tier that is cheapest with the least margin for the wanted success."""

    env: Longchain
    world: tuple[float | tuple[float, ...], ...]
    """The world's numbers, which it knows, in the order of ``LongchainParams``."""
    wanted: float = 0.95

    def init(self) -> tuple:
        """Return the empty carry."""
        return ()

    def apply(
        self, params: Any, carry: tuple, team: TeamObservation, key: PRNGKeyArray
    ) -> tuple[Plan, tuple, dict[str, Any]]:
        """Return one member of the cheapest tier, with the margin that this tier needs."""
        world = LongchainParams(*map(jnp.array, self.world))
        votes = longchain.law(world, longchain.difficulty_of(team), jnp.arange(len(TIERS)))
        tiers = Race(votes.right, votes.wrong)
        margins = jnp.minimum(tiers.least_margin(self.env.length, self.wanted), MAX_MARGIN)
        tier = jnp.argmin(votes.price * tiers.attempts(margins))
        row = TEMPLATES[self.env.family].row((1, 0, 1))
        row = dataclasses.replace(row, tier=tier.astype(jnp.int32), margin=margins[tier])
        return TEMPLATES[self.env.family].build(self.env, row, team), carry, {}


def _row(row: tuple[int, int, int], env: Environment, params: Any = None) -> MetaPolicy:
    return TemplatePolicy(env, row)


def _maker(env: Environment, params: Any = None) -> MetaPolicy:
    assert isinstance(env, Longchain)
    world = [np.asarray(number).tolist() for number in jax.tree.leaves(params or longchain.longchain_params())]
    return MakerPolicy(env, tuple(tuple(number) if isinstance(number, list) else number for number in world))


for _tier, _name in enumerate(TIERS):
    _summary = f"one {_name} attempt per step"
    STRATEGIES.add(f"one-attempt-{_name}", functools.partial(_row, (1, _tier, 1)), _summary, "longchain")
for _margin in (2, 3, 4, 6, 8):
    _summary = f"weak attempts until one answer is {_margin} ahead"
    STRATEGIES.add(f"ahead-by-{_margin}", functools.partial(_row, (1, 0, _margin)), _summary, "longchain")
STRATEGIES.add(
    "four-at-once", functools.partial(_row, (4, 0, 4)), "four weak attempts a round until one is 4 ahead", "longchain"
)
STRATEGIES.add("maker", _maker, "the cheapest tier with the least margin for 95 % of the chains", "longchain")
