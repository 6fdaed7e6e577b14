"""The parts of a bag to the whole: a folder that appears with all that is in it, or not at all.

NAME/labels/          a bag (MCAP): labels, instances and categories below /panoptic
NAME/coco/            panoptic.json, panoptic/*.png, images/*
NAME/cityscapes/      gtFine/train/NAME/*.png, leftImg8bit/train/NAME/*.png
NAME/refused.jsonl    a line for each frame without labels
NAME/report.json      numbers of frames; plan.json: what it was made of
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from panoptic_ros.files.bag import open_bag
from panoptic_ros.files.label_messages import CATEGORIES, LabelBag, LabelMessages
from panoptic_ros.fleet.parts import LABELLED, REFUSED, read_lines, read_totals
from panoptic_ros.fleet.places import (
    PLAN_FILE,
    REPORT_FILE,
    bag_folder,
    part_folder,
    work_folder,
)
from panoptic_ros.prediction import category_fields
from panoptic_ros.system import whole_folder


def join_bag(output: str | Path, bag: str, messages: LabelMessages) -> None:
    """Join the parts of a bag, and remove them; a bag that is whole is left alone.

    Args:
        output: The output folder.
        bag: Name of a bag all of whose parts are there.
        messages: Of the model.

    Raises:
        OSError: It cannot be written; the parts stay.
    """
    whole, work = bag_folder(output, bag), work_folder(output, bag)
    if not whole.exists():
        plan = json.loads((work / PLAN_FILE).read_text(encoding="utf-8"))
        parts = [part_folder(output, bag, number) for number in range(len(plan["spans"]))]
        with whole_folder(whole, work) as folder:
            _join_labels(folder / "labels", parts, messages)
            _join_refused(folder / "refused.jsonl", parts)
            formats = plan["identity"]["formats"]
            if "coco" in formats:
                _CocoFolder(folder / "coco", parts).write(messages)
            if "cityscapes" in formats:
                _join_cityscapes(folder / "cityscapes", parts, bag)
            report = bag_report(plan, parts)
            (folder / REPORT_FILE).write_text(json.dumps(report, indent=1), encoding="utf-8")
            shutil.copyfile(work / PLAN_FILE, folder / PLAN_FILE)
    shutil.rmtree(work, ignore_errors=True)


def bag_report(plan: dict[str, Any], parts: Sequence[Path]) -> dict[str, Any]:
    """Return what became of each frame of a bag.

    Of a topic: how many messages the bag ``declared``, and how many are ``labelled``,
    ``refused``, or ``missing`` because the bag is damaged or declares what it does not have.
    """
    counts: Counter[tuple[str, str]] = Counter()
    damages = []
    for part in parts:
        totals = read_totals(part)
        counts += totals.counts
        damages += [totals.damage] if totals.damage else []
    topics = {}
    for topic, declared in plan["cameras"].items():
        row = {end: counts[topic, end] for end in (LABELLED, REFUSED)}
        missing = max(0, declared - sum(row.values()))
        topics[topic] = {"declared": declared, **row, "missing": missing}
    state = "damaged" if damages or any(row["missing"] for row in topics.values()) else "whole"
    return {
        "name": plan["name"],
        "path": plan["path"],
        "state": state,
        "reason": "; ".join(dict.fromkeys(damages)),
        "topics": topics,
        "other_topics": plan["others"],
    }


def _lines(parts: Sequence[Path]) -> Iterator[tuple[Path, dict[str, Any]]]:
    for part in parts:
        for line in read_lines(part / "frames.jsonl"):
            yield part, line


def _join_labels(path: Path, parts: Sequence[Path], messages: LabelMessages) -> None:
    with LabelBag(path, messages.types) as bag:
        for part in parts:
            with closing(open_bag(part / "labels")) as reader:
                for connection, time, data in reader.messages():
                    if not bag.connections:
                        header = messages.header(*divmod(time, 1_000_000_000), "")
                        table = messages.categories(header)
                        bag.add("/panoptic/categories", CATEGORIES, time, table)
                    bag.add(connection.topic, connection.msgtype, time, data)


def _join_refused(path: Path, parts: Sequence[Path]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for _, line in _lines(parts):
            if line.pop("end") == REFUSED:
                file.write(json.dumps(line) + "\n")


def _place(source: Path, target: Path) -> None:
    """Link a file of a part into the whole; copy it where the disk has no links.

    Raises:
        FileExistsError: ``target`` is there.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        with source.open("rb") as data, target.open("xb") as file:
            shutil.copyfileobj(data, file)


class _CocoFolder:
    """Joins what parts have in the COCO panoptic format; images are named by topic and stamp."""

    def __init__(self, folder: Path, parts: Sequence[Path]) -> None:
        self._folder, self._parts = folder, parts

    def write(self, messages: LabelMessages) -> None:
        """Write all of it. Nothing but one frame is held in memory."""
        (self._folder / "panoptic").mkdir(parents=True)
        entries = self._folder / "entries.jsonl"  # of the images; the annotations come after all
        with (
            (self._folder / "panoptic.json").open("w", encoding="utf-8") as file,
            entries.open("w", encoding="utf-8") as annotations,
        ):
            file.write('{"images": [')
            labelled = (item for item in _lines(self._parts) if item[1]["end"] == LABELLED)
            for number, (part, line) in enumerate(labelled, start=1):
                name = self._place_ids(part, line)
                image, suffix = line.get("image"), ".jpg"
                if image:
                    suffix = Path(image).suffix
                    _place(part / "images" / image, self._folder / "images" / f"{name}{suffix}")
                height, width = line["size"]
                entry = {"id": number, "file_name": name + suffix, "height": height}
                file.write(",\n" * (number > 1) + json.dumps({**entry, "width": width}))
                entry = {"image_id": number, "file_name": f"{name}.png"}
                entry["segments_info"] = line["segments"]
                annotations.write(",\n" * (number > 1) + json.dumps(entry))
            file.write('],\n"annotations": [')
            annotations.flush()
            with entries.open(encoding="utf-8") as text:
                shutil.copyfileobj(text, file)
            categories = json.dumps(category_fields(messages.class_table))
            file.write(f'],\n"categories": {categories}}}\n')
        entries.unlink()

    def _place_ids(self, part: Path, line: dict[str, Any]) -> str:
        """Place the ids of a frame; return its name, numbered where a stamp is there twice."""
        own = f"{_word(line['topic'])}_{line['stamp']}"
        number, name = 1, own
        while True:
            try:
                _place(
                    part / "ids" / f"{line['name']}.png",
                    self._folder / "panoptic" / f"{name}.png",
                )
                return name
            except FileExistsError:
                number += 1
                name = f"{own}_{number}"


def _join_cityscapes(folder: Path, parts: Sequence[Path], bag: str) -> None:
    """Join what parts have for Cityscapes; the bag is the city, a topic a sequence."""
    city = _word(bag)
    sequences: dict[str, int] = {}
    frames: Counter[str] = Counter()
    (folder / "gtFine" / "train" / city).mkdir(parents=True)
    for part, line in _lines(parts):
        if line["end"] != LABELLED:
            continue
        topic = line["topic"]
        sequence = sequences.setdefault(topic, len(sequences))
        name = f"{city}_{sequence:06}_{frames[topic]:06}"
        frames[topic] += 1
        truth = folder / "gtFine" / "train" / city / f"{name}_gtFine"
        _place(part / "instance_ids" / f"{line['name']}.png", Path(f"{truth}_instanceIds.png"))
        _place(part / "class_ids" / f"{line['name']}.png", Path(f"{truth}_labelIds.png"))
        if "image" in line:
            image = folder / "leftImg8bit" / "train" / city / f"{name}_leftImg8bit.png"
            _place(part / "images" / line["image"], image)


def _word(name: str) -> str:
    """Return a name as it may stand in that of a file, and between the underscores of others."""
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-") or "bag"
