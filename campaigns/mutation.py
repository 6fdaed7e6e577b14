"""Seeded mutation of bytes and of nested values: the same seed gives the same inputs."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from typing import Any

NUMBERS = (0, 1, -1, 2, 127, 128, 255, 256, 65_500, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**63)
VALUES = (
    *NUMBERS,
    None,
    True,
    "",
    "x" * 5_000,
    "../../etc/passwd",
    "\x00",
    "%s%n",
    "${HOME}",
    0.5,
    1e308,
    float("nan"),
    float("inf"),
    [],
    {},
    [[]],
    {"": ""},
    [1, 2, 3],
    b"\xff".decode("latin1"),
)


def mutate_bytes(rng: random.Random, data: bytes, tokens: Sequence[bytes] = ()) -> bytes:
    """Return ``data`` with one to six changes; ``tokens`` are what the format knows."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        _change(rng, changed, tokens)
    return bytes(changed)


def _change(rng: random.Random, data: bytearray, tokens: Sequence[bytes]) -> None:
    at = rng.randrange(len(data) + 1)
    end = min(len(data), at + rng.choice((1, 2, 4, 8, 64, 1_000)))
    match rng.randrange(8):
        case 0 if at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        case 1 if at < len(data):
            data[at] = rng.randrange(256)
        case 2:
            number = rng.choice(NUMBERS) & 0xFFFFFFFF
            packed = struct.pack(rng.choice((">I", "<I")), number)[: rng.choice((1, 2, 4))]
            data[at : at + len(packed)] = packed
        case 3:
            del data[at:end]
        case 4:
            data[at:at] = data[at:end]
        case 5:
            del data[at:]
        case 6 if tokens:
            token = rng.choice(tokens)
            data[at : at + rng.choice((0, len(token)))] = token
        case _:
            data[at:at] = rng.randbytes(rng.choice((1, 4, 30)))


def mutate_value(rng: random.Random, value: Any) -> Any:
    """Return a nested value of mappings, lists and plain values with one change somewhere."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        if rng.random() < 0.1:
            return {k: v for k, v in value.items() if k != key}
        if rng.random() < 0.1:
            return {**value, str(rng.choice(VALUES)): rng.choice(VALUES)}
        return {**value, key: mutate_value(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        match rng.randrange(6):
            case 0:
                return value[:at] + value[at + 1 :]
            case 1:
                return value + value[at:]
            case _:
                return [*value[:at], mutate_value(rng, value[at]), *value[at + 1 :]]
    if isinstance(value, int | float) and rng.random() < 0.3:
        return value * rng.choice((-1, 2, 1_000, 0.5))
    return rng.choice(VALUES)
