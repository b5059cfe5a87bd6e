"""Hostile editions of what is well formed: of bytes, of JSON values and of SQL conditions."""

from __future__ import annotations

import copy
import random
from typing import Any

_NUMBERS = (
    b"\x00",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\xff",
    b"\x00\x00\x00\x01",
)
_ODD_VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 2**63, 10**400, 1e308, float("nan"), float("inf"), -0.0, 0.5),
    *("", "\0", "é" * 300, "\ud800", "../../etc/passwd", "NaN", "1e999", [], {}, [[]], [None], {"": None}),
)


def of_bytes(content: bytes, dice: random.Random, others: list[bytes]) -> bytes:
    """Return bytes with one to four changes; `others` are files to take a piece from."""
    made = bytearray(content)
    for _ in range(dice.choice([1, 1, 2, 4])):
        place, way = dice.randrange(len(made) + 1), dice.randrange(8)
        if way <= 1 and made:
            made[min(place, len(made) - 1)] ^= 1 << dice.randrange(8)
        elif way == 2:
            made[place : place + 1] = dice.choice(_NUMBERS)
        elif way == 3:
            number = dice.choice(_NUMBERS)
            made[place : place + len(number)] = number
        elif way == 4:
            del made[place : place + dice.choice([1, 4, 64])]
        elif way == 5:
            del made[place:]
        elif way == 6:
            other = dice.choice(others)
            start = dice.randrange(len(other) + 1)
            made[place:place] = other[start : start + dice.choice([4, 64, 512])]
        else:
            made[place : place + 32] = dice.randbytes(dice.choice([1, 8, 32]))
    return bytes(made)


def of_json(value: Any, dice: random.Random) -> Any:
    """Return a value with one to three of its parts replaced, left out or doubled."""
    made = copy.deepcopy(value)
    for _ in range(dice.choice([1, 1, 2, 3])):
        holder, key = _place(made, dice)
        if holder is None:
            return dice.choice(_ODD_VALUES)
        way = dice.random()
        if way < 0.15:
            del holder[key]
        elif way < 0.25:
            holder[key] = [holder[key]] * 3
        elif way < 0.35 and isinstance(holder[key], str):
            letters = list(holder[key])
            dice.shuffle(letters)
            holder[key] = "".join(letters)
        elif way < 0.45 and isinstance(holder[key], int | float):
            holder[key] *= dice.choice([-1, 10**9, 10**30])
        elif way < 0.5:
            deep: Any = 0
            for _ in range(60):
                deep = [deep]
            holder[key] = deep
        else:
            holder[key] = copy.deepcopy(dice.choice(_ODD_VALUES))
    return made


def _place(value: Any, dice: random.Random) -> tuple[Any, Any]:
    """Return a container somewhere in a value, and one of its keys; None where there is none."""
    holder, key, inside = None, None, value
    while isinstance(inside, dict | list) and inside:
        holder = inside
        key = dice.choice(list(inside)) if isinstance(inside, dict) else dice.randrange(len(inside))
        inside = holder[key]
        if dice.random() < 0.3:
            break
    return holder, key


_TEXTS = ("label", "uri", '"order"', "'cat'", "'2026-05-01'", "''", "'1e5'", "'ca%'", "null", "nosuch")
_VALUES = ("width", "score", "1", "300", "-0.0", "1e308", "9223372036854775807", "null", "'nan'::double", "width % 7")
_CALLS = ("lower({})", "length({})", "contains({}, 'a')", "abs({})", "sqrt({})", "round({})", "md5({})", "year({})")
_JOINS = ("and", "or", "and not", "or not", "=", "<>", "is distinct from")
_MARKS = (
    "(",
    ")",
    "'",
    '"',
    ",",
    "--",
    "/*",
    ";",
    "::",
    "[",
    "{",
    "\\",
    "\n",
    "$1",
    "?",
    "*",
    ".",
    "\0",
    "é",
    "\ud800",
)


def condition(dice: random.Random) -> str:
    """Return a SQL condition, often a right one, on columns ``label``, ``width``, ``score``, ``taken``, ``flag``."""
    text = _condition(dice, 0)
    for _ in range(dice.choice([0, 0, 0, 1, 3])):
        place = dice.randrange(len(text) + 1)
        if dice.random() < 0.5:
            text = text[:place] + dice.choice(_MARKS) + text[place:]
        else:
            text = text[:place] + text[place + dice.choice([1, 3]) :]
    return text


def _condition(dice: random.Random, depth: int) -> str:
    if depth < 3 and dice.random() < 0.5:
        return f"({_condition(dice, depth + 1)}) {dice.choice(_JOINS)} ({_condition(dice, depth + 1)})"
    text, value = dice.choice(_TEXTS), dice.choice(_VALUES)
    if dice.random() < 0.2:
        call = dice.choice(_CALLS)
        return f"{call.format(text if dice.random() < 0.7 else value)} {dice.choice(['=', '>', '<>'])} {value}"
    return dice.choice(
        [
            f"{text} = {dice.choice(_TEXTS)}",
            f"{value} {dice.choice(['<', '<=', '=', '>', '>='])} {dice.choice(_VALUES)}",
            f"{text} in ({', '.join(dice.choices(_TEXTS, k=dice.randint(1, 4)))})",
            f"{text} like {dice.choice(_TEXTS)}",
            f"{value} between {dice.choice(_VALUES)} and {dice.choice(_VALUES)}",
            f"{dice.choice([text, value])} is {dice.choice(['', 'not '])}null",
            f"taken >= {dice.choice(_TEXTS)}",
            "flag",
            f"case when flag then {value} > 1 else {text} = 'cat' end",
        ]
    )
