"""EPSNet: Efficient Panoptic Segmentation Network with Cross-layer Attention Fusion.

Chang, Chang, Tsai, Yan, ACCV 2020, in the order of its section 3.1: backbone, protohead, instance
head, semantic head, cross-layer attention fusion; then inference and training (3.2). Where paper
and published code differ this follows the code, so that its weights work: a fourth block and a
group norm in the protohead, the instance head on F3..F7. Defects of the code are not kept, which
is said where it matters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from panoptic_ros.networks.base import PanopticNetwork
from panoptic_ros.networks.epsnet.boxes import crop_window, has_area, make_anchors
from panoptic_ros.networks.epsnet.detection import Instances, fast_nms
from panoptic_ros.networks.epsnet.heads import (
    CrossLayerAttention,
    InstanceHead,
    Pyramid,
    SemanticHead,
    protohead,
)
from panoptic_ros.networks.layers.backbones import build_backbone
from panoptic_ros.ops.masks import EnlargedMasks
from panoptic_ros.ops.merging import merge_panoptic
from panoptic_ros.ops.slots import slots_at_once
from panoptic_ros.ops.upsampling import Step, upsampled_argmax
from panoptic_ros.truth import (
    ClassLogits,
    FrameSize,
    PanopticTarget,
    PredictionOptions,
    SegmentMap,
)

MASKS_PER_CHUNK = 20


class EPSNet(PanopticNetwork):
    """The whole network.

    The image has to fill the network input (``resize: stretch``): anchors, boxes and maps are
    relative to it.

    Args:
        thing_ids: Category ids of the thing classes.
        stuff_ids: Category ids of the stuff classes.
        backbone: See ``layers.backbones``.
        freeze_norm: Keep the backbone's batch norm as it was loaded: statistics and affine.
        channels: Of the pyramid and the heads.
        prototypes: k.
        anchor_sizes: Of F3..F7, as parts of the input's sides; the paper's are 24..384 of 550.
        anchor_ratios: Their width over height, relative like the sizes, of the anchors of a cell;
            the paper's. People want less.
        square_anchors: Give all anchors the height of their width; the released ResNet-50
            was trained so.
        semantic_weight: Lambda_s of the training (3.2); the paper's. Short trainings want more.
    """

    size_divisor = 1

    def __init__(
        self,
        thing_ids: Sequence[int],
        stuff_ids: Sequence[int],
        *,
        backbone: str = "resnet101",
        freeze_norm: bool = True,
        channels: int = 256,
        prototypes: int = 32,
        anchor_sizes: Sequence[float] = tuple(s / 550 for s in (24, 48, 96, 192, 384)),
        anchor_ratios: Sequence[float] = (1.0, 0.5, 2.0),
        square_anchors: bool = False,
        semantic_weight: float = 2.0,
    ) -> None:
        super().__init__(thing_ids, stuff_ids)
        self.freeze_norm = freeze_norm
        self.anchor_sizes, self.anchor_ratios = tuple(anchor_sizes), tuple(anchor_ratios)
        self.square_anchors = square_anchors
        self.semantic_weight = semantic_weight
        self.backbone = build_backbone(backbone)
        self.pyramid = Pyramid(self.backbone.channels[1:], channels)
        self.fusion = CrossLayerAttention(channels)
        self.protohead = protohead(channels, prototypes)
        self.instance_head = InstanceHead(
            channels, len(thing_ids) + 1, prototypes, len(self.anchor_ratios)
        )
        self.semantic_head = SemanticHead(channels, len(stuff_ids) + 2, prototypes)
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d) and not name.startswith("backbone"):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        if freeze_norm:
            for module in self._backbone_norms():
                module.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> EPSNet:
        """Set the mode; a frozen backbone norm stays in evaluation mode."""
        super().train(mode)
        if self.freeze_norm:
            for module in self._backbone_norms():
                module.eval()
        return self

    def _backbone_norms(self) -> Iterator[nn.Module]:
        return (m for m in self.backbone.modules() if isinstance(m, nn.BatchNorm2d))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Run all but the combination of prototypes and coefficients.

        Returns:
            ``class_logits`` (B, A, 1 + N_things), background first; ``box_deltas`` (B, A, 4);
            ``coefficients`` (B, A, k); ``anchors`` (B, A, 4), relative (cx, cy, w, h);
            ``prototypes`` P (B, k, H / 4, W / 4); ``semantic_coefficients`` Y
            (B, k, N_stuff + 2): "background" (never trained), the stuff, "other" (all things).

        Raises:
            ValueError: The images are too small for the semantic head.
        """
        features = self.pyramid(self.backbone(images)[1:])
        logits, deltas, coefficients = self.instance_head(features)
        anchors = make_anchors(
            [f.shape[-2:] for f in features],
            self.anchor_sizes,
            self.anchor_ratios,
            self.square_anchors,
            images.device,
        )
        return {
            "class_logits": logits,
            "box_deltas": deltas,
            "coefficients": coefficients,
            "anchors": anchors.expand(len(images), -1, -1),
            "prototypes": self.protohead(self.fusion(features)),
            "semantic_coefficients": self.semantic_head(features[-1]),
        }

    # Inference (section 3.2)

    @torch.no_grad()
    def predict(
        self, raw: dict[str, Tensor], sizes: Sequence[FrameSize], options: PredictionOptions
    ) -> list[SegmentMap]:
        """Combine prototypes and coefficients to masks and semantics, and merge them.

        Masks and semantics are made at the size of the output. Instances come first; stuff gets
        what they leave; "other" and background become void. Slots: ``MAX_INSTANCES`` things (as
        many as there are on a CPU), then the stuff classes.
        """
        raw = {name: value.float() for name, value in raw.items()}
        found = fast_nms(raw, options.score_threshold)
        return [
            self._segment(
                found.of_image(i),
                raw["prototypes"][i],
                raw["semantic_coefficients"][i],
                size.output,
                options.overlap_threshold,
            )
            for i, size in enumerate(sizes)
        ]

    def _segment(
        self,
        found: Instances,
        prototypes: Tensor,
        semantic_coefficients: Tensor,
        size: tuple[int, int],
        overlap_threshold: float,
    ) -> SegmentMap:
        """Compose one image of (rows, columns) ``size``."""
        scores, labels, boxes, coefficients = found
        usable = (scores > 0) & has_area(boxes, size)
        covered = torch.zeros(size, dtype=torch.bool, device=scores.device)
        masks = instance_masks(prototypes, coefficients, boxes, size)
        nothing = torch.zeros_like(covered, dtype=torch.int16)
        slots = merge_panoptic(masks, nothing, overlap_threshold, usable, covered)
        logits = stuff_logits(prototypes, semantic_coefficients)
        stuff = stuff_map(logits, covered & (slots == 0))
        stuff = torch.where(stuff > 0, stuff + len(scores), 0)
        class_ids = torch.cat((self.thing_ids[labels] * usable, self.stuff_ids))
        scores = torch.cat((scores, scores.new_ones(len(self.stuff_ids))))
        evidence = ClassLogits(logits, F.pad(self.stuff_ids, (1, 0)), tuple(logits.shape[1:]))
        return SegmentMap(torch.where(slots > 0, slots, stuff), class_ids, scores, evidence)

    def loss(self, images: Tensor, targets: Sequence[PanopticTarget]) -> dict[str, Tensor]:
        """Return the terms of the loss of section 3.2; see ``training.loss``."""
        from panoptic_ros.networks.epsnet.training import loss

        return loss(self, images, targets)


def instance_masks(
    prototypes: Tensor, coefficients: Tensor, boxes: Tensor, size: tuple[int, int]
) -> EnlargedMasks:
    """Return the masks of one image's instances, which are made a few at a time.

    Args:
        prototypes: (k, h, w).
        coefficients: (K, k).
        boxes: (K, 4), relative (x1, y1, x2, y2).
        size: Rows and columns of the masks.
    """
    grid = prototypes.shape[-2:]

    def soft(chunk: slice) -> Tensor:
        logits = torch.einsum("nk,khw->nhw", coefficients[chunk], prototypes)
        return logits.sigmoid() * crop_window(boxes[chunk], grid)

    chunks = slots_at_once(boxes, MASKS_PER_CHUNK)
    return EnlargedMasks(map(soft, chunks), 0.5, [Step.to(size, grid)])


def stuff_logits(prototypes: Tensor, coefficients: Tensor) -> Tensor:
    """Return S = P Y (equation 1, before its softmax): (1 + N_stuff, h, w), "other" first.

    Args:
        prototypes: (k, h, w).
        coefficients: (k, N_stuff + 2).
    """
    logits = torch.einsum("kc,khw->chw", coefficients, prototypes)
    return torch.cat((logits[-1:], logits[1:-1]))


def stuff_map(logits: Tensor, covered: Tensor) -> Tensor:
    """Return the stuff class of every pixel: int16, (H, W), 0 for none, else 1..N_stuff.

    "Other" competes as class 0 and loses 1 where an instance lies, so that stuff shows through
    gaps between them. The published code leaves the untrained background there when an image has
    no instance.

    Args:
        logits: (1 + N_stuff, h, w), see ``stuff_logits``.
        covered: bool, (H, W), where there is any instance.
    """
    step = Step.to(tuple(covered.shape), logits.shape[1:])
    return upsampled_argmax(logits, step, covered=covered)
