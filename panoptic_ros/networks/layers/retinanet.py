"""RetinaNet's detector on a feature pyramid P3..P7 (Lin et al., ICCV 2017).

Focal Loss for Dense Object Detection, sections 3 to 5: 9 anchors per cell, two heads shared by
all levels, focal loss. The parts that torchvision has are torchvision's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.ops import box_iou, sigmoid_focal_loss

from panoptic_ros.networks.layers.matching import best_of_image, image_numbers
from panoptic_ros.ops.suppression import Detections, per_anchor, suppress, top_candidates

STRIDES = (8, 16, 32, 64, 128)
_RATIOS = (0.5, 1.0, 2.0)
_SCALES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
_FOREGROUND_IOU, _BACKGROUND_IOU = 0.5, 0.4  # of anchors with boxes (section 4)
_LARGEST_DELTA = math.log(1000 / 16)  # torchvision's
_PRIOR = 0.01  # foreground probability at the start (section 4.1)


class RetinaNet(nn.Module):
    """Heads, anchors, decoding and losses.

    Args:
        num_classes: Thing classes.
        in_channels: Channels of the pyramid.
        channels: Width of the heads.
        depth: Convolutions of each head before its predictor.
        anchor_scale: Factor on the anchors' sizes, 1 for 32 to 812 pixels. Small inputs, where
            the objects are small too, want less.
        anchor_ratios: Height over width of the anchors, of which a cell has three for each.
        score_threshold: Candidates must score more than this.
        candidates: Candidates per pyramid level.
        nms_threshold: Overlap (IoU) above which the worse of two boxes of a class goes.
        smooth_l1_beta: Where the box loss turns from square to linear.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        channels: int = 256,
        depth: int = 4,
        anchor_scale: float = 1.0,
        anchor_ratios: Sequence[float] = _RATIOS,
        score_threshold: float = 0.05,
        candidates: int = 1000,
        nms_threshold: float = 0.5,
        smooth_l1_beta: float = 0.1,
    ) -> None:
        super().__init__()
        self.anchors_per_cell = len(anchor_ratios) * len(_SCALES)
        self.classification = _head(
            in_channels, channels, depth, self.anchors_per_cell * num_classes
        )
        self.regression = _head(in_channels, channels, depth, self.anchors_per_cell * 4)
        nn.init.constant_(self.classification[-1].bias, -math.log((1 - _PRIOR) / _PRIOR))
        # Whole numbers, which no cast of the network rounds.
        self.register_buffer(
            "cell_anchors", _cell_anchors(anchor_scale, anchor_ratios), persistent=False
        )
        self.num_classes = num_classes
        self.score_threshold = score_threshold
        self.candidates = candidates
        self.nms_threshold = nms_threshold
        self.smooth_l1_beta = smooth_l1_beta
        self.box_coder = BoxCoder(weights=(1.0, 1.0, 1.0, 1.0))
        self._anchors: dict[tuple, Tensor] = {}

    def forward(self, pyramid: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return class logits (B, A, C) and box deltas (B, A, 4) of maps P3..P7 (B, F, h, w).

        A counts the anchors of all levels, in the order of ``anchors``.
        """
        logits = [per_anchor(self.classification(p), self.num_classes) for p in pyramid]
        deltas = [per_anchor(self.regression(p), 4) for p in pyramid]
        return torch.cat(logits, dim=1), torch.cat(deltas, dim=1)

    def anchors(self, size: tuple[int, int], device: torch.device) -> Tensor:
        """Return the anchors (A, 4) of a network input of ``size``; made once for each size."""
        key = (*size, device)
        if key not in self._anchors:
            cells = self.cell_anchors.float().split(self.anchors_per_cell)
            levels = zip(cells, _grids(size), STRIDES, strict=True)
            self._anchors = {key: torch.cat([_grid_anchors(*level) for level in levels])}
        return self._anchors[key]

    def detect(
        self,
        logits: Tensor,
        deltas: Tensor,
        size: tuple[int, int],
        limits: Tensor,
        slots: int,
        score_threshold: float = 0.0,
    ) -> Detections:
        """Decode boxes, suppress double ones and keep the best, all in float32.

        Args:
            logits: (B, A, C), from ``forward``.
            deltas: (B, A, 4), from ``forward``.
            size: Rows and columns of the network input.
            limits: float32, (B, 2), width and height that boxes are clipped to; what has no
                area then is dropped.
            slots: Boxes per image.
            score_threshold: Boxes must score more than this and than the network's own threshold.
        """
        levels = [h * w * self.anchors_per_cell for h, w in _grids(size)]
        found = top_candidates(logits, levels, self.candidates)
        scores = found.values.float().sigmoid()
        usable = (scores > score_threshold) & (scores > self.score_threshold)
        scores = scores.where(usable, 0.0)
        chosen = deltas.gather(1, found.locations[..., None].expand(-1, -1, 4)).float()
        anchors = self.anchors(size, deltas.device)[found.locations]
        boxes = decode_boxes(chosen, anchors).clamp(min=0)
        boxes = torch.minimum(boxes, limits.repeat(1, 2)[:, None])
        scores = scores * (boxes[..., 2:] > boxes[..., :2]).all(-1)  # none is left in the padding
        return suppress(found, boxes, scores, self.nms_threshold, slots)

    def loss(
        self,
        logits: Tensor,
        deltas: Tensor,
        size: tuple[int, int],
        boxes: Sequence[Tensor],
        labels: Sequence[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Return focal loss and box loss.

        Both are sums over an image's anchors divided by the number of its positive anchors
        (section 4.1), then averaged over the batch.

        Args:
            logits: (B, A, C), from ``forward``.
            deltas: (B, A, 4), from ``forward``.
            size: Rows and columns of the network input.
            boxes: True boxes of each image, (N, 4), in pixels.
            labels: Class index of each true box, (N,).
        """
        anchors = self.anchors(size, logits.device)
        of_box, truth, label = (
            image_numbers(boxes),
            torch.cat(list(boxes)),
            torch.cat(list(labels)),
        )
        matches = self._match(truth, of_box, len(logits), anchors)
        number = (matches >= 0).sum(1).clamp(min=1)
        images, positive = torch.nonzero(matches >= 0).unbind(1)
        matched = matches[images, positive]
        target = torch.zeros_like(logits, dtype=torch.float32)
        target[images, positive, label[matched]] = 1
        used = (matches != Matcher.BETWEEN_THRESHOLDS)[..., None]
        focal = (sigmoid_focal_loss(logits.float(), target) * used).sum((1, 2)) / number
        distance = F.smooth_l1_loss(
            deltas[images, positive].float(),
            self.box_coder.encode_single(truth[matched], anchors[positive]),
            beta=self.smooth_l1_beta,
            reduction="none",
        )
        distance = (distance.sum(1) / number[images]).sum() / len(logits)
        return focal.mean(), distance

    def _match(self, boxes: Tensor, images: Tensor, number: int, anchors: Tensor) -> Tensor:
        """Index (B, A) of the true box of each anchor, or a negative constant of ``Matcher``.

        As torchvision's Matcher with low-quality matches: the anchors that overlap a box most
        are positive whatever that overlap, each for the box that it overlaps most itself.
        """
        iou = box_iou(boxes, anchors)
        overlap, best = best_of_image(iou, images, number)
        matches = torch.where(overlap < _FOREGROUND_IOU, Matcher.BETWEEN_THRESHOLDS, best)
        matches = torch.where(overlap < _BACKGROUND_IOU, Matcher.BELOW_LOW_THRESHOLD, matches)
        is_best = (iou == iou.amax(1, keepdim=True)).float()
        rescued = torch.zeros_like(overlap).index_add(0, images, is_best) > 0
        return torch.where(rescued, best, matches)


def decode_boxes(deltas: Tensor, anchors: Tensor) -> Tensor:
    """Return boxes (..., 4) of deltas and anchors, as torchvision's BoxCoder, without a host copy.

    Args:
        deltas: float32, (..., 4): shift of the centre in sides, logarithm of the sides' ratio.
        anchors: float32, (..., 4).
    """
    sides = anchors[..., 2:] - anchors[..., :2]
    centers = anchors[..., :2] + 0.5 * sides
    centers = deltas[..., :2] * sides + centers
    half = 0.5 * (deltas[..., 2:].clamp(max=_LARGEST_DELTA).exp() * sides)
    return torch.cat((centers - half, centers + half), dim=-1)


def _cell_anchors(scale: float, ratios: Sequence[float]) -> Tensor:
    """Return the anchors around the origin, level by level: int64, (5 * 3 * ratios, 4)."""
    heights = torch.tensor(ratios).sqrt()
    levels = []
    for stride in STRIDES:
        sizes = torch.tensor([4 * stride * scale * octave for octave in _SCALES])
        width, height = ((side[:, None] * sizes).flatten() for side in (1 / heights, heights))
        levels.append(torch.stack((-width, -height, width, height), dim=1) / 2)
    return torch.cat(levels).round().long()


def _grid_anchors(cell: Tensor, grid: tuple[int, int], stride: int) -> Tensor:
    """Shift the anchors (N, 4) of a cell to every cell of a level: (A, 4)."""
    y, x = (
        torch.arange(0, n * stride, stride, dtype=torch.int32, device=cell.device) for n in grid
    )
    y, x = torch.meshgrid(y, x, indexing="ij")
    return (torch.stack((x, y, x, y), dim=-1)[..., None, :] + cell).view(-1, 4)


def _head(in_channels: int, channels: int, depth: int, outputs: int) -> nn.Sequential:
    """``depth`` times 3x3 convolution and ReLU, and the 3x3 predictor."""
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Conv2d(in_channels if i == 0 else channels, channels, 3, padding=1)]
        layers += [nn.ReLU(inplace=True)]
    layers.append(nn.Conv2d(channels if depth else in_channels, outputs, 3, padding=1))
    for layer in layers[::2]:
        nn.init.normal_(layer.weight, std=0.01)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)


def _grids(size: tuple[int, int]) -> list[tuple[int, int]]:
    """Rows and columns of P3..P7; P6 and P7 round up."""
    return [(-(-size[0] // stride), -(-size[1] // stride)) for stride in STRIDES]
