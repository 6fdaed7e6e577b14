"""Truths and raw maps for the tests of dense detection, drawn by hand."""

from __future__ import annotations

import torch

from panoptic_ros.data.targets import compact_target
from panoptic_ros.model_zoo import load_config
from panoptic_ros.networks.dense_detection.boxes import LEVELS
from panoptic_ros.networks.dense_detection.network import DenseDetection
from panoptic_ros.system import share_directory

THINGS, STUFF = [9, 10, 11], [1, 2, 4]


def configuration(name):
    return load_config(share_directory() / "config" / "networks" / f"dense_detection_{name}.yaml")


def make_network():
    """The network with little to compute, in evaluation mode."""
    torch.manual_seed(0)
    settings = {"backbone": "resnet18_half", "norm": "batch", "channels": 16}
    return DenseDetection(THINGS, STUFF, semantic_channels=8, **settings).eval()


def make_target(slots, class_ids, crowd=()):
    ids = torch.tensor(class_ids)
    is_crowd = torch.tensor([i in crowd for i in range(len(class_ids))])
    return compact_target(slots, ids, torch.isin(ids, torch.tensor(THINGS)), is_crowd)


def blocks(size, *rectangles):
    """Slots that are painted with (slot, x1, y1, x2, y2)."""
    slots = torch.zeros(size, dtype=torch.long)
    for slot, x1, y1, x2, y2 in rectangles:
        slots[y1:y2, x1:x2] = slot
    return slots


def empty_raw(height, width):
    """Raw maps of an image in which nothing is seen: boxes of 8 pixels, no class anywhere."""
    things, channels = len(THINGS), len(THINGS) + len(STUFF)
    raw = {
        "semantic": torch.zeros(1, channels, height // 8, width // 8),
        "levelness": torch.zeros(1, 6, height // 4, width // 4),
    }
    for level in LEVELS:
        h, w = -(-height // 2**level), -(-width // 2**level)
        raw[f"box_class_p{level}"] = torch.full((1, things, h, w), -10.0)
        raw[f"offsets_p{level}"] = torch.full((1, 4, h, w), 4.0)
        raw[f"centerness_p{level}"] = torch.full((1, 1, h, w), 10.0)
    return raw


def aim(raw, level, box):
    """Let the locations of a level within ``box`` predict just that box."""
    x1, y1, x2, y2 = box
    height, width = raw[f"offsets_p{level}"].shape[-2:]
    for row in range(height):
        for column in range(width):
            x, y = (2**level * cell + 2**level // 2 for cell in (column, row))
            if x1 <= x < x2 and y1 <= y < y2:
                raw[f"offsets_p{level}"][0, :, row, column] = torch.tensor(
                    [x - x1, y - y1, x2 - x, y2 - y], dtype=torch.float
                )


def scene(network):
    """Raw maps of 64 x 96 with two objects beside each other and stuff in two halves."""
    raw = empty_raw(64, 96)
    raw["semantic"][0, 0] = 4.0
    raw["semantic"][0, 2, 4:] = 8.0
    boxes = {0: (8.0, 8.0, 40.0, 40.0), 1: (48.0, 8.0, 80.0, 40.0)}
    for label, box in boxes.items():
        aim(raw, 3, box)
        x1, y1, x2, y2 = (int(v) // 8 for v in box)
        raw["semantic"][0, network.first_thing + label, y1:y2, x1:x2] = 20.0
        raw["box_class_p3"][0, label, (y1 + y2) // 2, (x1 + x2) // 2] = 3.0 - label
    return raw, boxes
