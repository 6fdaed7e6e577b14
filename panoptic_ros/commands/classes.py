"""What ``panoptic classes`` prints: a model's classes as other programs want them."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from typing import Annotated

import typer
import yaml

from panoptic_ros.prediction import VOID, Category


def as_table(categories: Sequence[Category]) -> str:
    """Return id, kind and name, a line each."""
    lines = [f"{c.id:3}  {'thing' if c.is_thing else 'stuff'}  {c.name}" for c in categories]
    return "\n".join(lines) + "\n"


def as_hydra(categories: Sequence[Category]) -> str:
    """Return a label space for Hydra; it reads the ids in ``~/semantic``.

    Things are objects. What moves by itself and what one can drive on is nothing that a class
    table says: ``dynamic_labels`` and ``surface_places_labels`` are left empty.
    """
    names = {VOID: "unknown"} | {c.id: c.name for c in categories}
    space = {
        "total_semantic_labels": max(names) + 1,
        "dynamic_labels": [],
        "invalid_labels": [VOID],
        "object_labels": [c.id for c in categories if c.is_thing],
        "surface_places_labels": [],
        "label_names": [{"label": label, "name": names[label]} for label in sorted(names)],
    }
    return "---\n" + yaml.safe_dump(space, sort_keys=False, default_flow_style=None)


def as_colours(categories: Sequence[Category]) -> str:
    """Return the colour table of Hydra and semantic_inference: name, colour and id in CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "red", "green", "blue", "alpha", "id"])
    writer.writerow(["unknown", 0, 0, 0, 255, VOID])
    writer.writerows([c.name, *c.color, 255, c.id] for c in categories)
    return text.getvalue()


FORMATS: dict[str, Callable[[Sequence[Category]], str]] = {
    "table": as_table,
    "hydra": as_hydra,
    "colours": as_colours,
}


def classes(
    model: Annotated[str, typer.Argument(help="Name of a model or path to its folder.")],
    format_: Annotated[
        str, typer.Option("--format", help=f"One of {', '.join(FORMATS)}.")
    ] = "table",
) -> None:
    """Print a model's classes: a table, Hydra's label space, or a colour table in CSV."""
    from panoptic_ros.model_zoo import MODEL_FILE, find_model, load_config

    if format_ not in FORMATS:
        raise ValueError(f"format is {format_!r}; expected one of {', '.join(FORMATS)}")
    config = load_config(find_model(model) / MODEL_FILE)
    typer.echo(FORMATS[format_](config.categories), nl=False)
