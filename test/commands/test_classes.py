"""``panoptic classes``: what Hydra reads, and a table of colours."""

from __future__ import annotations

import csv
import io

import pytest
import yaml

from panoptic_ros.cli import main
from panoptic_ros.commands.classes import as_colours, as_hydra
from panoptic_ros.prediction import Category

CATEGORIES = (
    Category(3, "road", False, (128, 64, 128)),
    Category(7, "traffic light, red", True, (250, 170, 30)),
    Category(12, "person", True, (220, 20, 60)),
)


def test_hydras_label_space():
    space = yaml.safe_load(as_hydra(CATEGORIES))
    assert space["total_semantic_labels"] == 13  # one more than the largest id in ~/semantic
    assert space["invalid_labels"] == [0] and space["object_labels"] == [7, 12]
    assert space["dynamic_labels"] == space["surface_places_labels"] == []
    names = {entry["label"]: entry["name"] for entry in space["label_names"]}
    assert names == {0: "unknown", 3: "road", 7: "traffic light, red", 12: "person"}


def test_colours():
    rows = list(csv.DictReader(io.StringIO(as_colours(CATEGORIES))))
    assert [int(row["id"]) for row in rows] == [0, 3, 7, 12]
    assert rows[2]["name"] == "traffic light, red"
    assert [int(rows[2][key]) for key in ("red", "green", "blue", "alpha")] == [250, 170, 30, 255]


def test_command(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["classes", "fpsnet_small"])
    lines = capsys.readouterr().out.splitlines()
    assert "  4  stuff  road" in lines and " 10  thing  person" in lines
    with pytest.raises(SystemExit, match="1"):
        main(["classes", "fpsnet_small", "--format", "xml"])
    assert "expected one of table, hydra, colours" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="1"):
        main(["classes", "no such model"])
