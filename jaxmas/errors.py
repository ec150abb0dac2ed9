"""The error that a user can mend."""

import difflib
import math
from collections.abc import Iterable


class JaxmasError(Exception):
    """One clear line: what was wrong, what was expected, how to mend it.

    The command line prints it and exits with code 2.
    """


def refuse(wrong: bool, message: str) -> None:
    """Raise a ``JaxmasError`` where something is wrong."""
    if wrong:
        raise JaxmasError(message)


def printable(message: object, longest: int) -> str:
    """Return a message of others as one line that is harmless to a terminal, cut where it is longer than allowed."""
    line = " ".join(str(message)[: 4 * longest].split())
    clean = "".join(sign if sign.isprintable() else "?" for sign in line)
    return clean if len(clean) <= longest else f"{clean[: longest - 1]}…"


def check_numbers(who: str, settings: object, names: Iterable[str], low: float, high: float = math.inf) -> None:
    """Raise a ``JaxmasError`` where a setting of one of these names is no finite number from ``low`` to ``high``."""
    bounds = f"at least {low}" if high == math.inf else f"{low} to {high}"
    for name in names:
        value = getattr(settings, name)
        refuse(not (low <= value <= high and math.isfinite(value)), f"{who}: {name} is {value}; it has to be {bounds}")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the closest known name as a question, or the list of all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(names)}" if names else "none is known"
