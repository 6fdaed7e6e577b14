"""Panoptic FCN (Li et al., Fully Convolutional Networks for Panoptic Segmentation, CVPR 2021).

Every thing and every stuff class is written into a kernel, and its mask is that kernel convolved
with one high-resolution feature. The order is the paper's: kernel generator (3.1, ``heads`` and
``kernels``), kernel fusion (3.2, ``kernels``), feature encoder (3.3, ``heads``), inference (3.4,
here) and training (3.4, ``targets`` and ``training``). Where the paper is silent
this follows the authors' code: smoothed center maps, half of all kernels from each level at most,
scores multiplied by the trust in the mask.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from panoptic_ros.networks.base import PanopticNetwork
from panoptic_ros.networks.layers.backbones import build_backbone
from panoptic_ros.networks.panoptic_fcn.heads import (
    FeatureEncoder,
    KernelEmbedding,
    KernelHead,
    PositionHead,
    SemanticFPN,
)
from panoptic_ros.networks.panoptic_fcn.kernels import (
    LEVELS,
    Kernels,
    best_first,
    best_mask,
    fuse_stuff,
    fuse_things,
    steps_to,
    stuff_kernels,
    thing_kernels,
)
from panoptic_ros.ops.dynamic_kernels import mask_scores, soft_masks
from panoptic_ros.ops.masks import EnlargedMasks
from panoptic_ros.ops.merging import merge_panoptic
from panoptic_ros.ops.slots import places_in_use, slots_in_use
from panoptic_ros.truth import FrameSize, PanopticTarget, PredictionOptions, SegmentMap

_MIN_SCORE = 0.05  # of a thing, after rescoring


class PanopticFCN(PanopticNetwork):
    """Panoptic FCN; the defaults are the authors' ResNet-50 for COCO.

    Args:
        thing_ids: Category ids of the thing classes.
        stuff_ids: Category ids of the stuff classes.
        backbone: See ``layers.backbones``.
        norm: Batch norm of the trunk, ``frozen`` or ``batch``.
        stride_in_1x1: Where bottlenecks have their stride, see ``ResNet``.
        channels: Of the pyramid, the semantic FPN and the heads; 64 or another multiple of 32.
        head_depth: Convolutions in each head and in the encoder.
        deformable_position: Deformable convolutions in the position head.
        encoder_channels: C_e, length of a kernel.
        deformable_encoder: Deformable convolutions in the feature encoder (version ``*``).
        things_in_stuff: ``merged``: region channel 0 stands for all things (COCO, Mapillary);
            ``separate``: thing classes have region channels of their own, behind the stuff
            classes (Cityscapes).
        own_mean: Stuff kernels are means over the cells of their region. In the authors' code they
            are sums over it by the cells of the whole level, so that those of small regions
            are next to nothing.
        center_threshold: Object centers at or below this score are dropped.
        region_threshold: Stuff at or below this mean score is dropped on that level.
        similarity_threshold: Cosine similarity from which two kernels are one object.
        mask_threshold: Above it a soft mask of a thing is true.
        max_instances: Things kept per image; each level proposes half as many.
        scale_ranges: Square root of the box area, in pixels, that P3..P7 learn from.
        positives: k, kernels sampled inside each instance in training.
        position_weight: lambda_pos.
        segmentation_weight: lambda_seg.

    Raises:
        ValueError: ``things_in_stuff`` or the number of ``scale_ranges`` is wrong.
    """

    def __init__(
        self,
        thing_ids: Sequence[int],
        stuff_ids: Sequence[int],
        backbone: str = "resnet50",
        norm: str = "frozen",
        stride_in_1x1: bool = True,
        channels: int = 256,
        head_depth: int = 3,
        deformable_position: bool = True,
        encoder_channels: int = 64,
        deformable_encoder: bool = False,
        things_in_stuff: str = "merged",
        own_mean: bool = False,
        center_threshold: float = 0.05,
        region_threshold: float = 0.05,
        similarity_threshold: float = 0.9,
        mask_threshold: float = 0.4,
        max_instances: int = 100,
        scale_ranges: Sequence[tuple[int, int]] = (
            (1, 64),
            (32, 128),
            (64, 256),
            (128, 512),
            (256, 2048),
        ),
        positives: int = 7,
        position_weight: float = 1.0,
        segmentation_weight: float = 3.0,
    ) -> None:
        super().__init__(thing_ids, stuff_ids)
        if things_in_stuff not in ("merged", "separate"):
            raise ValueError(
                f"things_in_stuff is {things_in_stuff!r}; expected merged or separate"
            )
        if len(scale_ranges) != len(LEVELS):
            raise ValueError(f"scale_ranges has {len(scale_ranges)} pairs; expected {len(LEVELS)}")
        things, stuff = len(thing_ids), len(stuff_ids)
        self.merged = things_in_stuff == "merged"
        self.own_mean = own_mean
        self.center_threshold = center_threshold
        self.region_threshold = region_threshold
        self.similarity_threshold = similarity_threshold
        self.mask_threshold = mask_threshold
        self.max_instances = max_instances
        self.scale_ranges = tuple(scale_ranges)
        self.positives = positives
        self.position_weight = position_weight
        self.segmentation_weight = segmentation_weight

        self.regions = stuff + (1 if self.merged else things)  # N_st
        self.backbone = build_backbone(backbone, norm=norm, stride_in_1x1=stride_in_1x1)
        self.fpn = FeaturePyramidNetwork(
            self.backbone.channels, channels, extra_blocks=LastLevelP6P7(channels, channels)
        )
        self.position_head = PositionHead(
            channels, things, self.regions, head_depth, deformable_position
        )
        self.kernel_head = KernelHead(channels, head_depth)
        self.thing_embedding = KernelEmbedding(channels, encoder_channels)
        self.stuff_embedding = KernelEmbedding(channels, encoder_channels)
        self.semantic_fpn = SemanticFPN(channels)
        self.feature_encoder = FeatureEncoder(
            channels, encoder_channels, head_depth, deformable_encoder
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Compute the maps of all heads.

        Args:
            images: (B, 3, H, W); H and W multiples of 32.

        Returns:
            ``encoding``, F_e (B, C_e, H/4, W/4), and for each level P3..P7 of size (h, w):
            ``centers_p3``, logits of L_th (B, N_th, h, w); ``regions_p3``, logits of L_st
            (B, N_st, h, w); ``kernels_p3``, kernel weights before their embedding (B, C, h, w).
        """
        stages = self.backbone(images)
        pyramid = list(self.fpn({f"c{i}": x for i, x in enumerate(stages, start=2)}).values())
        raw = {"encoding": self.feature_encoder(self.semantic_fpn(*pyramid[:4]))}
        for level, x in zip(LEVELS, pyramid[1:], strict=True):
            raw[f"centers_{level}"], raw[f"regions_{level}"] = self.position_head(x)
            raw[f"kernels_{level}"] = self.kernel_head(x)
        return raw

    def find_things(self, raw: dict[str, Tensor]) -> Kernels:
        """Take the kernels at the peaks of the center maps, best first (section 3.1)."""
        things = thing_kernels(raw, self.max_instances // 2, self.center_threshold)
        things = things.take(best_first(things.scores))
        return things._replace(weights=self.thing_embedding(things.weights))

    def find_stuff(self, raw: dict[str, Tensor]) -> list[Kernels]:
        """Pool one kernel per level and stuff channel over its region (section 3.1)."""
        levels = stuff_kernels(raw, self.region_threshold, self.own_mean)
        weights = self.stuff_embedding(torch.stack([level.weights for level in levels]))
        return [
            level._replace(weights=embedded)
            for level, embedded in zip(levels, weights, strict=True)
        ]

    @torch.no_grad()
    def predict(
        self, raw: dict[str, Tensor], sizes: Sequence[FrameSize], options: PredictionOptions
    ) -> list[SegmentMap]:
        """Segment (section 3.4)."""
        things, stuff = self.generate(raw)
        accepted = things.scores >= options.score_threshold
        things = things._replace(scores=torch.where(accepted, things.scores, 0))
        return [
            self._segment(
                things.of_image(i),
                stuff.of_image(i),
                raw["encoding"][i],
                size,
                options.overlap_threshold,
            )
            for i, size in enumerate(sizes)
        ]

    @torch.no_grad()
    def generate(self, raw: dict[str, Tensor]) -> tuple[Kernels, Kernels]:
        """Return the fused kernels of things, best first, and of stuff, by channel.

        The score of a thing is multiplied by the mean of its soft mask where that is true.
        """
        things = fuse_things(self.find_things(raw), self.similarity_threshold)
        number = slots_in_use(things.scores > 0)
        things = things.take(best_first(things.scores)[:, :number])
        trust = mask_scores(things.weights, raw["encoding"], self.mask_threshold)
        scores = things.scores * trust
        scores = torch.where(scores >= _MIN_SCORE, scores, 0)
        things = things._replace(scores=scores).take(best_first(scores)[:, : self.max_instances])
        return things, fuse_stuff(self.find_stuff(raw))

    def _segment(
        self,
        things: Kernels,
        stuff: Kernels,
        encoding: Tensor,
        size: FrameSize,
        overlap_threshold: float,
    ) -> SegmentMap:
        """Compose one image."""
        n_things = slots_in_use(things.scores > 0)
        present = places_in_use(stuff.scores > 0)
        thing_masks = soft_masks(things.weights[:n_things], encoding)
        stuff_masks = soft_masks(stuff.weights[present], encoding)
        stuff_masks = stuff_masks * (stuff.scores[present] > 0)[:, None, None]
        slots = self.stuff_slots(stuff.classes[present])
        unused = things.scores.shape[0] - n_things  # slots of stuff begin behind all of things
        stuff_map = best_mask(stuff_masks, torch.where(slots > 0, slots + unused, 0), size)
        masks = EnlargedMasks([thing_masks], self.mask_threshold, steps_to(size))
        used = things.scores[:n_things] > 0
        owner = merge_panoptic(masks, stuff_map, overlap_threshold, used)
        class_ids = torch.where(things.scores > 0, self.thing_ids[things.classes], 0)
        first = 1 if self.merged else 0
        stuff_scores = stuff.scores[first : first + len(self.stuff_ids)]
        return SegmentMap(
            owner,
            torch.cat((class_ids, self.stuff_ids)),
            torch.cat((things.scores, stuff_scores)),
        )

    def stuff_slots(self, channels: Tensor) -> Tensor:
        """Return k for channels (N,) of stuff class k - 1, 0 for those of things: int64, (N,)."""
        slots = channels if self.merged else channels + 1
        return torch.where(slots <= len(self.stuff_ids), slots, 0)

    def loss(self, images: Tensor, targets: Sequence[PanopticTarget]) -> dict[str, Tensor]:
        """Return the terms of L_pos and L_seg (Eq. 9), weighted; see ``training.loss``."""
        from panoptic_ros.networks.panoptic_fcn.training import loss

        return loss(self, images, targets)
