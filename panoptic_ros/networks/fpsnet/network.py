"""FPSNet: Fast Panoptic Segmentation Network (de Geus, Meletis, Dubbelman, RA-L 2020).

Arrangement and terms are the letter's: backbone with detector and single feature map (section
III-B), attention masks (III-A.1), panoptic head (III-A.2), training (III-A.3, equation 1).
The authors published no code. Where the letter is silent, the docstrings say what is done here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from panoptic_ros.networks.base import PanopticNetwork
from panoptic_ros.networks.fpsnet.heads import PanopticHead, SingleFeatureMap
from panoptic_ros.networks.layers.backbones import build_backbone
from panoptic_ros.networks.layers.retinanet import RetinaNet
from panoptic_ros.ops.constants import constant
from panoptic_ros.ops.upsampling import Step, resize_nearest, upsampled_argmax
from panoptic_ros.truth import (
    ClassLogits,
    FrameSize,
    PanopticTarget,
    PredictionOptions,
    SegmentMap,
)

_STRIDES = {8: 3, 4: 2}  # of the single feature map, and the finest level that it is made of


class FPSNet(PanopticNetwork):
    """The whole network.

    ``forward`` ends where the boxes have to be chosen; the panoptic head needs them and runs
    inside ``predict``. Both halves are static graphs: export ``forward``, and ``panoptic_head``
    (a module of its own) with the attention masks as an input.

    Args:
        thing_ids: Category ids of the thing classes.
        stuff_ids: Category ids of the stuff classes. Without any (Pascal VOC) the head's
            "unlabelled" output is kept at inference and gives void; else every pixel would
            belong to an instance. The letter does not say how it got its VOC backgrounds.
        backbone: See ``layers.backbones``.
        norm: ``batch`` or ``frozen``, of the backbone only; the letter does not say which.
        fpn_channels: Channels of P3..P7. P6 is made from C5, as in the RetinaNet paper.
        fpn_norm: Batch norm in the pyramid, which the letter does not have: keeps the features of
            a trunk of large values from drowning the attention masks.
        head_channels: Width of RetinaNet's two heads.
        head_depth: Their depth.
        anchor_scale: Factor on RetinaNet's anchor sizes.
        anchor_ratios: Height over width of the anchors; RetinaNet's. People want more.
        candidate_score: Boxes must score more than this, whatever the options of ``predict``.
        candidates: Candidates per pyramid level before suppression.
        nms_threshold: Overlap (IoU) above which the worse of two boxes of a class goes. The
            letter gives none of these three; they are RetinaNet's.
        feature_channels: F_dim, depth of the single feature map; 128 is that of Panoptic FPN and
            of the letter's figures.
        panoptic_channels: Width of the panoptic head.
        panoptic_depth: Its 3x3 convolutions: 1 that merges attention and features, and 4.
        num_attention: N_att, attention masks, hence instances per image at most.
        attention_scale: C_att, the value of a mask at the centre of its box.
        attention: ``soft`` (bell-shaped) or ``hard`` (C_att in the whole box).
        spread: What the letter's S = Diag(w/4, h/4) is: ``quarter_size`` the standard deviations
            (a mask falls to e^-2 at the edges whatever the size of its box, as the letter's
            figure 4 shows), or ``quarter_variance`` the variances in cells, as it is printed.
        norm_order: ``conv-bn-relu``, or ``conv-relu-bn``, the order in which the letter names
            the parts of a layer of the panoptic head.
        ground_truth_boxes: Part of the training images, 0..1, whose masks come from the true
            boxes instead of the predicted ones. Not in the letter, which trains with 0: helps
            short trainings, in which the detector is late.
        stride: Of the single feature map: the letter's 8, or 4 for what is thin or far away.
        loss_stride: 1, 2, 4 or 8: the panoptic loss looks at every n-th row and column. The
            letter does not give its resolution; at 1 the up-sampled logits are most of the cost
            of a training step on a CPU.
        unmatched_is_void: Whether what looks like a thing, but has no box, becomes void. In the
            letter it becomes the likeliest stuff: road, say, where a person was not found.

    Raises:
        ValueError: ``attention``, ``spread`` or ``norm_order`` is none of the above.
    """

    def __init__(
        self,
        thing_ids: Sequence[int],
        stuff_ids: Sequence[int],
        *,
        backbone: str = "resnet50",
        norm: str = "batch",
        fpn_channels: int = 256,
        fpn_norm: bool = False,
        head_channels: int = 256,
        head_depth: int = 4,
        anchor_scale: float = 1.0,
        anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        candidate_score: float = 0.05,
        candidates: int = 1000,
        nms_threshold: float = 0.5,
        feature_channels: int = 128,
        panoptic_channels: int = 128,
        panoptic_depth: int = 5,
        num_attention: int = 50,
        attention_scale: float = 50.0,
        attention: str = "soft",
        spread: str = "quarter_size",
        norm_order: str = "conv-bn-relu",
        ground_truth_boxes: float = 0.0,
        stride: int = 8,
        loss_stride: int = 1,
        unmatched_is_void: bool = False,
    ) -> None:
        super().__init__(thing_ids, stuff_ids)
        _check_choice("attention", attention, ("soft", "hard"))
        _check_choice("spread", spread, ("quarter_size", "quarter_variance"))
        _check_choice("norm_order", norm_order, ("conv-bn-relu", "conv-relu-bn"))
        _check_choice("stride", stride, tuple(_STRIDES))
        _check_choice("loss_stride", loss_stride, [n for n in (1, 2, 4, 8) if n <= stride])
        self.stride, self.loss_stride = stride, loss_stride
        self.num_attention = num_attention
        self.attention_scale = attention_scale
        self.attention = attention
        self.spread = spread
        self.ground_truth_boxes = ground_truth_boxes
        self.unmatched_is_void = unmatched_is_void

        self.backbone = build_backbone(backbone, norm)
        self._finest = _STRIDES[stride]
        channels = self.backbone.channels[self._finest - 2 :]
        last_levels = LastLevelP6P7(channels[-1], fpn_channels)
        last_levels.use_P5 = False
        pyramid_norm = nn.BatchNorm2d if fpn_norm else None
        self.fpn = FeaturePyramidNetwork(channels, fpn_channels, last_levels, pyramid_norm)
        self.detector = RetinaNet(
            len(thing_ids),
            fpn_channels,
            head_channels,
            head_depth,
            anchor_scale,
            anchor_ratios,
            candidate_score,
            candidates,
            nms_threshold,
        )
        self.single_map = SingleFeatureMap(fpn_channels, feature_channels, self._finest)
        self.panoptic_head = PanopticHead(
            num_attention + feature_channels,
            panoptic_channels,
            panoptic_depth,
            num_attention,
            num_attention + len(stuff_ids) + 2,
            norm_order,
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Run what comes before the boxes.

        Returns:
            ``class_logits`` (B, A, N_things) and ``box_deltas`` (B, A, 4) over all anchors, and
            ``features`` (B, F_dim, H / stride, W / stride), the single feature map S.
        """
        maps = self.backbone(images)[self._finest - 2 :]
        levels = {f"p{level}": c for level, c in enumerate(maps, start=self._finest)}
        pyramid = list(self.fpn(levels).values())
        logits, deltas = self.detector(pyramid[3 - self._finest :])
        features = self.single_map(pyramid)
        return {"class_logits": logits, "box_deltas": deltas, "features": features}

    def attention_masks(self, boxes: Tensor, valid: Tensor, grid: tuple[int, int]) -> Tensor:
        """Draw f(X) = exp(-1/2 (X - C) S^-1 (X - C)^T) inside each box, times C_att.

        X are the centres of the cells. A side shorter than one cell is drawn one cell long, so
        that no box is lost between the centres.

        Args:
            boxes: (B, N_att, 4), in pixels of the network input.
            valid: bool, (B, N_att); the masks of the others are zero.
            grid: Rows and columns of the masks, those of the single feature map.

        Returns:
            float32, (B, N_att, *grid), 0..C_att.
        """
        boxes = boxes.float() / self.stride
        start, end = boxes[..., :2], boxes[..., 2:]
        center, length = (start + end) / 2, (end - start).clamp(min=1)
        reach, quarter = length / 2, length / 4
        variance = quarter if self.spread == "quarter_variance" else quarter**2
        x, y = (
            self._bell(center[..., i : i + 1], reach[..., i : i + 1], variance[..., i : i + 1], n)
            for i, n in enumerate(grid[::-1])
        )
        scale = self.attention_scale * valid
        return y[..., :, None] * (x * scale[..., None])[..., None, :]

    def _bell(self, center: Tensor, reach: Tensor, variance: Tensor, cells: int) -> Tensor:
        """One axis of f, 0 beyond the reach of the center: (B, N_att, cells)."""
        distance = torch.arange(0.5, cells, device=center.device) - center
        inside = distance.abs() <= reach
        if self.attention == "hard":
            return inside.float()
        return torch.exp(-0.5 * distance**2 / variance) * inside

    @torch.no_grad()
    def predict(
        self, raw: dict[str, Tensor], sizes: Sequence[FrameSize], options: PredictionOptions
    ) -> list[SegmentMap]:
        """Choose boxes, run the panoptic head, and take the argmax per pixel.

        The slots are N_att things, best score first (the order of the masks matters in training
        only), then the stuff classes. The letter drops its two extra training outputs; here one
        of them may give void (``unmatched_is_void``, or "unlabelled" without stuff classes).
        Boxes up to ``options.score_threshold`` leave their slot empty, and the logits of empty
        slots are the lowest there are, so that a mask of zeros never wins a pixel. Every pixel
        gets a label, as in the letter, if neither does.
        """
        features = raw["features"]
        grid = (features.shape[2], features.shape[3])
        sides = [side for size in sizes for side in size.valid[::-1]]
        limits = constant(sides, features.device)
        found = self.detector.detect(
            raw["class_logits"],
            raw["box_deltas"],
            (grid[0] * self.stride, grid[1] * self.stride),
            limits.view(-1, 2),
            self.num_attention,
            options.score_threshold,
        )
        valid = found.valid
        attention = self.attention_masks(found.boxes, valid, grid)
        logits = self.panoptic_head(features, attention.to(features.dtype))
        things, stuff, unmatched, unlabelled = self._split(logits)
        empty = ~valid[..., None, None]
        things = things.masked_fill(empty, torch.finfo(things.dtype).min)
        channels = [things, stuff]
        if self.stuff_ids.numel() == 0:
            channels.append(unlabelled)
        elif self.unmatched_is_void:
            channels.append(unmatched)
        logits = torch.cat(channels, dim=1)

        thing_ids = self.thing_ids[found.labels] * valid
        class_ids = torch.cat((thing_ids, self.stuff_ids.expand(len(sizes), -1)), dim=1)
        stuff_scores = found.scores.new_ones(len(sizes), self.stuff_ids.numel())
        scores = torch.cat((found.scores, stuff_scores), dim=1)
        slots = [self._slots(*item) for item in zip(logits, sizes, strict=True)]
        evidence = [
            ClassLogits(
                item[: len(ids)], ids, (size.valid[0] / self.stride, size.valid[1] / self.stride)
            )
            for item, ids, size in zip(logits, class_ids, sizes, strict=True)
        ]
        return [SegmentMap(*item) for item in zip(slots, class_ids, scores, evidence, strict=True)]

    def _slots(self, logits: Tensor, size: FrameSize) -> Tensor:
        slots = upsampled_argmax(logits, Step((self.stride, self.stride), size.valid)) + 1
        segments = self.num_attention + self.stuff_ids.numel()
        if len(logits) > segments:
            slots = slots.where(slots <= segments, 0)
        return resize_nearest(slots, size.output).int()

    def _split(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Split the head's outputs: things, stuff, unmatched things, unlabelled."""
        return logits.split([self.num_attention, self.stuff_ids.numel(), 1, 1], dim=1)

    def loss(self, images: Tensor, targets: Sequence[PanopticTarget]) -> dict[str, Tensor]:
        """Return the terms of equation 1; see ``training.loss``."""
        from panoptic_ros.networks.fpsnet.training import loss

        return loss(self, images, targets)


def _check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; expected {' or '.join(map(str, choices))}")
