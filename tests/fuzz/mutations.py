"""Texts, bytes and values that nobody would write on purpose."""

import json
import random
from copy import copy
from typing import Any

NUMBERS = ("0", "-1", "1", "2", "0.5", "1e-300", "1e300", "1e999", "nan", "-inf", "9" * 400)
WORDS = ("", " ", "all", "none", "auto", "true", "False", "null", "[]", "a,b", ",", "1,2", "0x1")
STRANGE = (
    "é\u0301",
    "\u202eabc",
    "\x00",
    "\n",
    "[red]x[/]",
    "$x$",
    "../..",
    "a" * 5000,
    "😀",
    "%s{0}",
)


def text(rng: random.Random) -> str:
    """A short text."""
    kind = rng.randrange(4)
    if kind == 3:
        return "".join(map(chr, (rng.randrange(1, 0xD800) for _ in range(rng.randrange(12)))))
    return rng.choice((NUMBERS, WORDS, STRANGE)[kind])


def value(rng: random.Random, depth: int = 2) -> Any:
    """A value as TOML or JSON may hold it."""
    kind = rng.randrange(8 if depth else 6)
    match kind:
        case 0:
            return rng.choice((True, False, None))
        case 1:
            return rng.choice((0, 1, -1, 2**63, -(2**70), 10**30, rng.randrange(-100, 100)))
        case 2:
            return rng.choice((0.0, -0.0, 1e308, 5e-324, float("nan"), float("inf"), rng.random()))
        case 6:
            return [value(rng, depth - 1) for _ in range(rng.randrange(4))]
        case 7:
            return {text(rng): value(rng, depth - 1) for _ in range(rng.randrange(3))}
        case _:
            return text(rng)


def changed(tree: Any, rng: random.Random) -> Any:
    """A copy of plain values with one of them changed, left out or put in."""
    if not isinstance(tree, dict | list) or not tree or rng.random() < 0.15:
        return value(rng)
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    key, new = rng.choice(keys), copy(tree)
    action = rng.random()
    if action < 0.15:
        del new[key]
    elif action < 0.25 and isinstance(new, dict):
        new[text(rng)] = value(rng)
    elif action < 0.25 and isinstance(new, list):
        new.append(value(rng))
    else:
        new[key] = changed(tree[key], rng)
    return new


def changed_json(data: str, rng: random.Random) -> str:
    """A JSON text with a changed value, or with changed characters."""
    if rng.random() < 0.7:
        return json.dumps(changed(json.loads(data), rng))
    return damaged(data.encode(), rng).decode(errors="replace")


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Bits turned, bytes changed, cut out, put in, repeated, or the end torn off."""
    place, length = rng.randrange(len(data)), 1 + int(rng.expovariate(0.2))
    if rng.random() < 0.5:
        place = min(place, rng.randrange(1500))  # most of what can go wrong is in the header
    head, tail = data[:place], data[place + length :]
    match rng.randrange(6):
        case 0:
            return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]
        case 1:
            return head + rng.randbytes(len(data[place : place + length])) + tail
        case 2:
            return head + tail
        case 3:
            return head + rng.randbytes(length) + data[place:]
        case 4:
            return head + 2 * data[place : place + length] + tail
        case _:
            return head
