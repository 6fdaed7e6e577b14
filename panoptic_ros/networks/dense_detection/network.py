"""Real-Time Panoptic Segmentation from Dense Detections (Hou, Li et al., CVPR 2020).

A ResNet-FPN with one panoptic head: boxes at every location of P3..P7 and, on the joined maps of
all levels, semantics and "levelness", the level a pixel's box comes from. A mask has no parameters
of its own: it is where the boxes that the pixels themselves predict agree with the box of the
detection, times where the semantics agree with its class.

Where the paper is silent or differs from the authors' code (inference only), this follows the
code, so that their weights work: semantics at H/8, generalised IoU with +1 smoothing, sigma 0.4.
The code's focal prior is on the semantic layer; here it is on the box classes, where it belongs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelP6P7

from panoptic_ros.networks.base import PanopticNetwork
from panoptic_ros.networks.dense_detection.boxes import (
    LEVELS,
    Grid,
    boxes_from_offsets,
    dense_boxes,
    flatten_levels,
)
from panoptic_ros.networks.dense_detection.masks import instance_masks
from panoptic_ros.networks.layers.backbones import build_backbone
from panoptic_ros.ops.constants import constant
from panoptic_ros.ops.merging import merge_panoptic
from panoptic_ros.ops.slots import slots_in_use
from panoptic_ros.ops.suppression import Candidates, Detections, suppress, top_candidates
from panoptic_ros.ops.upsampling import Step, resize_nearest, upsampled_argmax
from panoptic_ros.truth import (
    ClassLogits,
    FrameSize,
    PanopticTarget,
    PredictionOptions,
    SegmentMap,
)

MAX_OFFSET = 10_000.0  # pixels
FOCAL_PRIOR = 0.01
CLASS_THRESHOLD = 0.06
CANDIDATES_PER_LEVEL = 1000
CLASS_NMS_THRESHOLD = 0.6
CROSS_CLASS_NMS_THRESHOLD = 0.97
MAX_INSTANCES = 100


class DenseDetection(PanopticNetwork):
    """Dense detection network (section 4).

    Args:
        thing_ids: Category ids of the thing classes.
        stuff_ids: Category ids of the stuff classes.
        backbone: See ``layers.backbones``.
        norm: ``frozen`` or ``batch`` norm in the ResNet.
        channels: Of the pyramid and the localisation tower.
        semantic_channels: Of the semantic tower.
        things_first: Whether the semantic channels are things then stuff (COCO) or stuff then
            things (Cityscapes train ids).
        levelness: Whether levelness chooses each pixel's box (eq. 14). Without it, a pixel's
            agreement with a detection is the best of its boxes of all levels (section 5.5).
        semantic_weight: Lambda of eq. 19; the paper takes 1 for Cityscapes, 0.4 for COCO.
    """

    def __init__(
        self,
        thing_ids: Sequence[int],
        stuff_ids: Sequence[int],
        backbone: str = "resnet50",
        norm: str = "frozen",
        channels: int = 256,
        semantic_channels: int = 128,
        things_first: bool = False,
        levelness: bool = True,
        semantic_weight: float = 1.0,
    ) -> None:
        super().__init__(thing_ids, stuff_ids)
        parts = [self.thing_ids, self.stuff_ids]
        semantic_ids = torch.cat(parts if things_first else parts[::-1])
        self.register_buffer("semantic_ids", semantic_ids, persistent=False)
        slots = (self.class_index(semantic_ids, self.stuff_ids) + 1).to(torch.int16)
        self.register_buffer("stuff_slot_of_channel", slots, persistent=False)
        self.first_thing = 0 if things_first else len(stuff_ids)
        self.semantic_weight = semantic_weight

        self.backbone = build_backbone(backbone, norm=norm)
        self.fpn = FeaturePyramidNetwork(
            self.backbone.channels[1:], channels, LastLevelP6P7(channels, channels)
        )
        self.semantic_tower = _tower(channels, semantic_channels)
        self.localisation_tower = _tower(channels, channels)
        self.box_class = nn.Conv2d(semantic_channels, len(thing_ids), 3, padding=1)
        self.offsets = nn.Conv2d(channels, 4, 3, padding=1)
        self.centerness = nn.Conv2d(channels, 1, 3, padding=1)
        self.scales = nn.ParameterList(torch.ones(1) for _ in LEVELS)
        joined = len(LEVELS) * semantic_channels
        self.semantic = nn.Conv2d(joined, len(semantic_ids), 3, padding=1)
        if levelness:
            joined = len(LEVELS) * channels
            self.levelness = nn.Conv2d(joined, len(LEVELS) + 1, 3, padding=1)
        else:
            self.levelness = None
        self._initialise()

    def _initialise(self) -> None:
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d) and not name.startswith(("backbone", "fpn")):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)
        nn.init.constant_(self.box_class.bias, -math.log((1 - FOCAL_PRIOR) / FOCAL_PRIOR))

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """Return the feature maps P3 to P7 of images (B, 3, H, W)."""
        maps = dict(zip(("c3", "c4", "c5"), self.backbone(images)[1:], strict=True))
        return list(self.fpn(maps).values())

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the raw maps of images (B, 3, H, W), H and W multiples of 8.

        Returns:
            For each level l of 3..7: ``box_class_pl`` (B, N_things, h, w) logits,
            ``offsets_pl`` float32 (B, 4, h, w), pixels from the location to the left, top, right
            and bottom side of its box, and ``centerness_pl`` (B, 1, h, w) logits. ``semantic``
            (B, N, H/8, W/8) logits. ``levelness`` (B, 6, H/4, W/4) logits, 0 for background.
        """
        maps = self.pyramid(images)
        semantic = [self.semantic_tower(p) for p in maps]
        local = [self.localisation_tower(p) for p in maps]
        raw = {}
        for level, scale, s, p in zip(LEVELS, self.scales, semantic, local, strict=True):
            raw[f"box_class_p{level}"] = self.box_class(s)
            raw[f"offsets_p{level}"] = self._offsets(p, scale)
            raw[f"centerness_p{level}"] = self.centerness(p)
        height, width = maps[0].shape[-2:]
        raw["semantic"] = self.semantic(_join(semantic, (height, width)))
        if self.levelness is not None:
            raw["levelness"] = convolve_joined(self.levelness, local, (2 * height, 2 * width))
        return raw

    def _offsets(self, features: Tensor, scale: Tensor) -> Tensor:
        """Predict offsets in float32, as rounding their logarithm to half would shift the box."""
        weight, bias = self.offsets.weight.float(), self.offsets.bias.float()
        with _no_autocast(features.device.type):
            exponent = scale.float() * F.conv2d(features.float(), weight, bias, padding=1)
        return exponent.clamp(max=math.log(MAX_OFFSET)).exp()

    @torch.no_grad()
    def predict(
        self, raw: dict[str, Tensor], sizes: Sequence[FrameSize], options: PredictionOptions
    ) -> list[SegmentMap]:
        """Build masks (section 3.2) and fuse them with the semantics (Kirillov et al.).

        Fusion is at the resolution of the network; the fused map is resized to the output.
        Detections below the score threshold are dropped before non-maximum suppression, which
        gives the same: a box is only ever suppressed by a better one.
        """
        found = self.detect(raw, [size.valid for size in sizes], options.score_threshold)
        dense = dense_boxes(raw)
        segments = []
        for i, (valid, output) in enumerate(sizes):
            boxes, labels, scores = (field[i] for field in found[:3])
            number = slots_in_use(scores > 0)
            boxes, labels, scores = boxes[:number], labels[:number], scores[:number]
            stuff = self._stuff_slots(raw["semantic"][i], valid)
            probability = self.thing_probability(raw["semantic"][i])
            masks = instance_masks(boxes, labels, dense[i], probability, valid)
            slots = merge_panoptic(masks, stuff, options.overlap_threshold, scores > 0)
            things = torch.where(scores > 0, self.thing_ids[labels], 0)
            class_ids = torch.cat((things, self.stuff_ids))
            scores = torch.cat((scores, scores.new_ones(len(self.stuff_ids))))
            cells = (valid[0] / 8, valid[1] / 8)
            logits = ClassLogits(raw["semantic"][i], self.semantic_ids, cells)
            segments.append(SegmentMap(resize_nearest(slots, output), class_ids, scores, logits))
        return segments

    def detect(
        self,
        raw: dict[str, Tensor],
        valid_sizes: Sequence[tuple[int, int]],
        score_threshold: float = 0.0,
    ) -> Detections:
        """Select the query boxes (eq. 4) from the dense ones: ``MAX_INSTANCES`` slots per image.

        Args:
            raw: What ``forward`` returned.
            valid_sizes: (rows, columns) of each image without its padding. Boxes are clipped to
                it, and cells that lie wholly in the padding have none.
            score_threshold: On the class probability times the centerness.
        """
        grid = Grid.of(raw)
        sides = [side for height, width in valid_sizes for side in (width, height)]
        valid = constant(sides, grid.locations.device).view(-1, 2)
        inside = (grid.corners < valid[:, None]).all(-1)
        probability = flatten_levels(raw, "box_class").sigmoid()
        score = probability * flatten_levels(raw, "centerness").sigmoid()
        usable = (probability > CLASS_THRESHOLD) & (score >= score_threshold) & inside[..., None]
        score = torch.where(usable, score, 0)
        best = top_candidates(score, grid.level_sizes, CANDIDATES_PER_LEVEL)

        index = best.locations[..., None]
        offsets = flatten_levels(raw, "offsets").gather(1, index.expand(-1, -1, 4))
        boxes = boxes_from_offsets(grid.locations[best.locations], offsets).clamp(min=0)
        boxes = torch.minimum(boxes, (valid - 1).repeat(1, 2)[:, None])
        return _suppress_twice(best, boxes)

    def thing_probability(self, semantic: Tensor) -> Tensor:
        """Return the semantic probability of the thing classes at H/4 (section 3.2).

        Args:
            semantic: (N, H/8, W/8), logits.

        Returns:
            (N_things, H/4, W/4), 0..1.
        """
        height, width = (2 * side for side in semantic.shape[1:])
        logits = F.interpolate(semantic[None].float(), size=(height, width), mode="bilinear")
        return logits[0].softmax(0)[self.first_thing :]

    def _stuff_slots(self, semantic: Tensor, size: tuple[int, int]) -> Tensor:
        """Return 1 + the stuff index of the best class of each pixel; 0 where that is a thing."""
        channel = upsampled_argmax(semantic, Step((8.0, 8.0), size))
        return self.stuff_slot_of_channel.index_select(0, channel.flatten().int()).view(size)

    def loss(self, images: Tensor, targets: Sequence[PanopticTarget]) -> dict[str, Tensor]:
        """Return the six terms of eq. 19 (five without levelness); see ``training.loss``."""
        from panoptic_ros.networks.dense_detection.training import loss

        return loss(self, images, targets)


def _suppress_twice(candidates: Candidates, boxes: Tensor) -> Detections:
    """Non-maximum suppression within each class, then over all classes at a high threshold."""
    scores = candidates.values
    kept = suppress(candidates, boxes, scores, CLASS_NMS_THRESHOLD, scores.shape[1])
    classless = Candidates(
        kept.scores,
        torch.arange(scores.shape[1], device=boxes.device).expand_as(scores),
        torch.zeros_like(kept.labels),
    )
    final = suppress(classless, kept.boxes, kept.scores, CROSS_CLASS_NMS_THRESHOLD, MAX_INSTANCES)
    return Detections(
        final.boxes,
        kept.labels.gather(1, final.locations),
        final.scores,
        kept.locations.gather(1, final.locations),
    )


def _tower(inputs: int, channels: int) -> nn.Sequential:
    """Four times convolution, group norm (8 channels a group) and ReLU."""
    layers: list[nn.Module] = []
    for width in (inputs, channels, channels, channels):
        convolution = nn.Conv2d(width, channels, 3, padding=1)
        layers += [convolution, nn.GroupNorm(channels // 8, channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def convolve_joined(layer: nn.Conv2d, maps: list[Tensor], size: tuple[int, int]) -> Tensor:
    """Return ``layer(_join(maps, size))`` without the joined maps, for few outputs.

    A 3x3 convolution is the sum of nine 1x1 ones, each shifted; a 1x1 convolution and resizing
    commute. So the maps are convolved where they are small, and what is resized has nine channels
    for each output instead of those of all maps.
    """
    outputs, resized = layer.out_channels, None
    for part, features in zip(layer.weight.split(maps[0].shape[1], 1), maps, strict=True):
        taps = part.permute(2, 3, 0, 1).flatten(0, 2)[..., None, None]
        own = F.interpolate(F.conv2d(features, taps).float(), size=size, mode="bilinear")
        resized = own if resized is None else resized + own
    padded = F.pad(resized, (1, 1, 1, 1)).unflatten(1, (3, 3, outputs))
    height, width = size
    shifted = [
        padded[:, dy, dx, :, dy : dy + height, dx : dx + width]
        for dy in range(3)
        for dx in range(3)
    ]
    return (sum(shifted) + layer.bias.float()[:, None, None]).to(maps[0].dtype)


def _join(maps: list[Tensor], size: tuple[int, int]) -> Tensor:
    """Resize maps to one size and concatenate their channels."""
    return torch.cat([F.interpolate(m, size=size, mode="bilinear") for m in maps], dim=1)


def _no_autocast(device: str) -> AbstractContextManager[None]:
    """Keep training from rounding what is to be in float32."""
    on = torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")
    return torch.autocast(device, enabled=False) if on else nullcontext()
