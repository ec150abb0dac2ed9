"""How soon a system recovers from a shift, and what it loses meanwhile.

``queries`` are those played since the shift at each measurement, the first one 0; ``scores`` the rewards there.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxmas.statistics import paired_difference

SHARE = 0.9
"""Of the way from the score right after the shift to the reference."""


def recovery(
    queries: Int[np.ndarray, "measurements"], scores: Float[np.ndarray, "measurements"], reference: float
) -> int | None:
    """Return the queries until the first measurement at s₀ + 0.9 (reference − s₀) or above; None if there is none.

    s₀ is the score right after the shift; who is not below the reference then has nothing to recover.
    """
    target = scores[0] + SHARE * max(reference - scores[0], 0.0)
    reached = np.flatnonzero(scores >= target)
    return int(queries[reached[0]]) if reached.size else None


def average(
    queries: Int[np.ndarray, "measurements"], scores: Float[np.ndarray, "measurements *test"]
) -> Float[np.ndarray, "*test"]:
    """Return the mean score over the queries since the shift, linear between measurements."""
    return np.asarray(np.trapezoid(scores, queries, axis=0) / (queries[-1] - queries[0]))


def regret(
    horizon: int, averages: Float[np.ndarray, "seeds test"], references: Float[np.ndarray, "others test"]
) -> dict[str, Any]:
    """Return ∫ (reference − score) dq over the queries since the shift, in rewards, with its interval.

    ``averages`` are scores averaged over these queries, ``references`` those of other runs on the same test queries.
    """
    lost = paired_difference(references, averages)
    return {"mean": horizon * lost.mean, "ci95": [horizon * end for end in lost.ci95]}
