"""Checks of JSON documents that others wrote: each value refused by one line that says where it stands."""

import json
import math
import re
from collections.abc import Callable
from typing import Any, TypeAlias

from jaxmas.errors import JaxmasError, did_you_mean, refuse

Check: TypeAlias = Callable[[Any, str], None]
"""Refuses a value; the text says where in the document it stands."""


def parsed(data: bytes) -> Any:
    """Return parsed JSON, without names given twice and without numbers that are none."""

    def constant(name: str) -> None:
        raise JaxmasError(f"it holds {name}; every number has to be finite")

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in items:
            refuse(name in found, f"it gives {shown(name)} twice in one object; keep one")
            found[name] = value
        return found

    try:
        return json.loads(data.decode(), parse_constant=constant, object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        raise JaxmasError(f"it cannot be read as JSON ({error}); write it with a JSON library") from error


def shown(value: Any) -> str:
    """Return a value for a message: short, and harmless to a terminal."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def expect(right: bool, value: Any, where: str, expected: str) -> None:
    """Refuse a value that is not right, and say what it has to be."""
    refuse(not right, f"{where} is {shown(value)}; it has to be {expected}")


def is_number(value: Any) -> bool:
    """Return whether a value is a number; a truth is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def number(low: float = -1e12, high: float = 1e12) -> Check:
    """Allow finite numbers in a range."""

    def check(value: Any, where: str) -> None:
        right = is_number(value) and low <= value <= high and math.isfinite(value)
        expect(right, value, where, f"a finite number from {low:g} to {high:g}")

    return check


def whole(low: int, high: int = 10**12) -> Check:
    """Allow whole numbers in a range."""

    def check(value: Any, where: str) -> None:
        right = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        expect(right, value, where, f"a whole number from {low} to {high:,}")

    return check


def text(longest: int, pattern: str = r"[^<>]+", expected: str = "without < and >") -> Check:
    """Allow what can be printed on one line: no line breaks, no signs that turn the direction of text."""

    def check(value: Any, where: str) -> None:
        right = isinstance(value, str) and value.isprintable() and value == value.strip() and len(value) <= longest
        right = right and re.fullmatch(pattern, value) is not None
        expect(right, value, where, f"one line of 1 to {longest} printable characters, {expected}")

    return check


def one_of(*choices: Any) -> Check:
    """Allow these values, of their types."""

    def check(value: Any, where: str) -> None:
        expect(type(value) in map(type, choices) and value in choices, value, where, " or ".join(map(repr, choices)))

    return check


def or_null(check: Check) -> Check:
    """Allow null as well."""

    def either(value: Any, where: str) -> None:
        if value is not None:
            check(value, where)

    return either


def structure(**fields: Check) -> Check:
    """Allow an object with these names, all of them and no others."""

    def check(value: Any, where: str) -> None:
        expect(isinstance(value, dict), value, where, "an object")
        begin = f"{where}." if where else ""
        for name in value:
            known = did_you_mean(name, fields)
            refuse(name not in fields, f"{shown(begin + name)} does not belong here; {known}")
        for name, part in fields.items():
            refuse(name not in value, f"{begin}{name} is missing; it has to be there")
            part(value[name], f"{begin}{name}")

    return check


def mapping(name: Check, item: Check, least: int, most: int) -> Check:
    """Allow an object of any names that are right, with values that are right."""

    def check(value: Any, where: str) -> None:
        right = isinstance(value, dict) and least <= len(value) <= most
        expect(right, value, where, f"an object of {least} to {most} names")
        for key, part in value.items():
            name(key, f"a name in {where}")
            item(part, f"{where}.{key}")

    return check


def sequence(item: Check, least: int, most: int) -> Check:
    """Allow a list of values that are right."""

    def check(value: Any, where: str) -> None:
        right = isinstance(value, list) and least <= len(value) <= most
        expect(right, value, where, f"a list of {least} to {most}" if least < most else f"a list of {least}")
        for index, part in enumerate(value):
            item(part, f"{where}[{index}]")

    return check
