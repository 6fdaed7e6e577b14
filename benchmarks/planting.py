"""Outputs of ``forward`` that show each network a given layout of instances.

``plant`` changes the real outputs of the real network, so that shapes and precision are theirs.
Each network gets what it would say of such a scene: boxes for those that detect, embeddings for
PanoNet, kernels for Panoptic FCN, and masks that agree with them. Where a network has fewer slots
than the scene has instances, it keeps as many as it can: that is its design, and what a crowded
scene costs it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_iou

from benchmarks.scenes import Layout
from panoptic_ros.networks.base import PanopticNetwork
from panoptic_ros.networks.dense_detection.boxes import LEVELS as DENSE_LEVELS
from panoptic_ros.networks.dense_detection.boxes import grid_locations
from panoptic_ros.networks.dense_detection.network import DenseDetection
from panoptic_ros.networks.epsnet.boxes import encode_boxes
from panoptic_ros.networks.epsnet.network import EPSNet
from panoptic_ros.networks.fpsnet.network import FPSNet
from panoptic_ros.networks.panonet.network import PanoNet
from panoptic_ros.networks.panoptic_fcn.network import LEVELS as FCN_LEVELS
from panoptic_ros.networks.panoptic_fcn.network import PanopticFCN

SURE = 10.0  # a logit: its sigmoid is 1 within 5e-5
CLEAR = 4.0  # a prototype's logit inside a mask
APART = 4.0  # distance of two clusters along one axis of the embedding; bandwidths are 0.3
# Of a kernel against the encoded features, unit vectors with a constant: 6 inside its own
# instance, negative elsewhere as long as two of the vectors have a cosine below OTHERS.
STRENGTH, OTHERS = 30.0, 0.8

Raw = dict[str, Tensor]


def plant(network: PanopticNetwork, raw: Raw, layout: Layout) -> Raw:
    """Return outputs that show every image of the batch a layout and nothing else of things.

    Args:
        network: That made ``raw``; may have been cast.
        raw: What its ``forward`` returned; left as it is.
        layout: Of the instances, in pixels of the network input.

    Raises:
        TypeError: The network is none of the five.
    """
    for kind, planter in _PLANTERS.items():
        if isinstance(network, kind):
            # Made on the CPU, in float32, and brought to where the network's outputs are.
            fresh = {name: value.float().cpu().clone() for name, value in raw.items()}
            planter(network, fresh, layout)
            return {
                name: value.to(raw[name].device, raw[name].dtype).contiguous()
                for name, value in fresh.items()
            }
    raise TypeError(f"cannot plant instances in the outputs of {type(network).__name__}")


def _plant_fpsnet(network: FPSNet, raw: Raw, layout: Layout) -> None:
    height, width = raw["features"].shape[2:]
    detector = network.detector
    anchors = detector.anchors(
        (network.stride * height, network.stride * width), network.thing_ids.device
    ).cpu()
    best = _best_anchors(layout.boxes, anchors)
    raw["class_logits"].fill_(-SURE)
    raw["class_logits"][:, best, layout.classes] = SURE
    deltas = detector.box_coder.encode_single(layout.boxes, anchors[best])
    raw["box_deltas"][:, best] = deltas


def _plant_dense_detection(network: DenseDetection, raw: Raw, layout: Layout) -> None:
    """P3 carries everything; every cell of a box gives that box, as a trained network would."""
    for level in DENSE_LEVELS:
        raw[f"box_class_p{level}"].fill_(-SURE)
    grid = tuple(raw["semantic"].shape[2:])
    owner = layout.owners(grid, 8)
    inside = owner >= 0
    if len(layout.boxes):
        boxes = layout.boxes[owner.clamp(min=0)]
        at = grid_locations(*grid, 8, owner.device).view(*grid, 2)
        offsets = torch.cat((at - boxes[..., :2], boxes[..., 2:] - at), -1).clamp(min=1)
        raw["offsets_p3"][:, :, inside] = offsets[inside].T
        rows, columns = layout.cells(grid, 8)
        raw["box_class_p3"][:, layout.classes, rows, columns] = SURE
        raw["centerness_p3"][:, 0, rows, columns] = SURE
    if "levelness" in raw:
        raw["levelness"][:, 1] = 2 * SURE  # P3; 0 is background
    stuff = 0 if network.first_thing else len(network.thing_ids)
    _plant_semantic(raw["semantic"], owner, layout.classes, network.first_thing, stuff)


def _plant_panonet(network: PanoNet, raw: Raw, layout: Layout) -> None:
    """Each instance has an embedding of its own: its number in base 4, a digit per channel."""
    grid = tuple(raw["semantic"].shape[2:])
    owner = layout.owners(grid, 4)
    stuff = len(network.thing_ids)
    _plant_semantic(raw["semantic"], owner, layout.classes, 0, stuff)
    channels = raw["embedding"].shape[1]
    digits = owner.clamp(min=0)[None] // 4 ** torch.arange(channels)[:, None, None] % 4
    raw["embedding"][:] = APART * digits.float()


def _plant_epsnet(network: EPSNet, raw: Raw, layout: Layout) -> None:
    height, width = layout.size
    boxes = layout.boxes / layout.boxes.new_tensor((width, height, width, height))
    anchors = raw["anchors"][0]
    corners = torch.cat(
        (anchors[:, :2] - anchors[:, 2:] / 2, anchors[:, :2] + anchors[:, 2:] / 2), 1
    )
    best = _best_anchors(boxes, corners)
    raw["class_logits"].fill_(-SURE)
    raw["class_logits"][:, :, 0] = SURE  # background
    raw["class_logits"][:, best, 0] = -SURE
    raw["class_logits"][:, best, 1 + layout.classes] = SURE
    raw["box_deltas"][:, best] = encode_boxes(boxes, anchors[best])
    raw["prototypes"][:, 0] = CLEAR  # a mask is this one, cut to its box
    raw["coefficients"][:, best] = 0.0
    raw["coefficients"][:, best, 0] = 1.0


def _plant_panoptic_fcn(network: PanopticFCN, raw: Raw, layout: Layout) -> None:
    """Instances take turns on P3 and P4: a level proposes half of the slots."""
    channels = raw["encoding"].shape[1]
    grid = tuple(raw["encoding"].shape[2:])
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(len(layout.boxes) + 1, channels - 1, generator=generator)
    directions = F.normalize(directions, dim=1)
    seen = torch.cat((torch.ones(len(directions), 1), directions), 1)  # the last: nothing's
    raw["encoding"][:] = seen[layout.owners(grid, 4)].permute(2, 0, 1)
    wanted = STRENGTH * torch.cat((-torch.full((len(directions), 1), OTHERS), directions), 1)
    embedding = network.thing_embedding
    inverse = torch.linalg.pinv(embedding.weight.float().cpu())
    kernels = (wanted - embedding.bias.float().cpu()) @ inverse.T
    for level in FCN_LEVELS:
        raw[f"centers_{level}"].fill_(-SURE)
    for turn, (level, stride) in enumerate((("p3", 8), ("p4", 16))):
        mine = torch.arange(len(layout.boxes))[turn::2]
        rows, columns = layout.cells(tuple(raw[f"centers_{level}"].shape[2:]), stride)
        rows, columns = rows[mine], columns[mine]
        raw[f"centers_{level}"][:, layout.classes[mine], rows, columns] = SURE
        raw[f"kernels_{level}"][:, :, rows, columns] = kernels[mine].T


def _plant_semantic(
    semantic: Tensor, owner: Tensor, classes: Tensor, first_thing: int, stuff: int
) -> None:
    """Show the class of its owner in every cell, and stuff where there is none."""
    semantic.fill_(-SURE)
    semantic[:, stuff, owner < 0] = SURE
    if len(classes):
        rows, columns = torch.nonzero(owner >= 0, as_tuple=True)
        semantic[:, first_thing + classes[owner[rows, columns]], rows, columns] = SURE


def _best_anchors(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Return the anchor (A, 4) that overlaps each box (K, 4) most: int64, (K,)."""
    if not len(boxes):
        return torch.zeros(0, dtype=torch.int64)
    return torch.cat([box_iou(chunk, anchors).argmax(1) for chunk in boxes.split(8)])


_PLANTERS: dict[type[PanopticNetwork], Callable[[PanopticNetwork, Raw, Layout], None]] = {
    FPSNet: _plant_fpsnet,
    DenseDetection: _plant_dense_detection,
    PanoNet: _plant_panonet,
    EPSNet: _plant_epsnet,
    PanopticFCN: _plant_panoptic_fcn,
}
