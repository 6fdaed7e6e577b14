"""The class tables of the data sets, and class tables written into a model.yaml."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from panoptic_ros.prediction import Category, check_categories


@cache
def _tables() -> dict[str, list[dict[str, Any]]]:
    return json.loads(Path(__file__).with_name("categories.json").read_text(encoding="utf-8"))


def load_categories(name: str) -> tuple[Category, ...]:
    """Return the classes of a data set, with the data set's own ids, in its own order.

    Args:
        name: camvid, cityscapes, coco, mapillary_vistas_v1_2 or pascal_voc.

    Raises:
        ValueError: There is no such table; the message lists those there are.
    """
    if name not in _tables():
        raise ValueError(f"unknown class table {name!r}; there are {', '.join(_tables())}")
    return parse_categories(_tables()[name])


def parse_categories(
    categories: str | Sequence[Mapping[str, Any]],
) -> tuple[Category, ...]:
    """Return the classes that a model.yaml or a COCO panoptic JSON names or lists.

    Args:
        categories: A name for ``load_categories``, or entries {id, name, isthing, color} with
            color as [red, green, blue] 0..255.

    Raises:
        ValueError: An unknown name, an entry that lacks a key or holds a value out of range.
    """
    if isinstance(categories, str):
        return load_categories(categories)
    try:
        return check_categories([_parse_category(entry) for entry in categories])
    except (TypeError, OverflowError) as error:
        raise ValueError(f"the classes cannot be read: {error}") from error


def _parse_category(entry: Mapping[str, Any]) -> Category:
    if missing := {"id", "name", "isthing", "color"} - set(entry):
        raise ValueError(f"category {dict(entry)} lacks {', '.join(sorted(missing))}")
    color = tuple(int(value) for value in entry["color"])
    if len(color) != 3 or not all(0 <= value <= 255 for value in color):
        raise ValueError(
            f"category {entry['name']!r} has color {entry['color']}; "
            "expected [red, green, blue], each 0..255"
        )
    return Category(int(entry["id"]), str(entry["name"]), bool(entry["isthing"]), color)
