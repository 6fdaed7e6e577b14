"""EPSNet: Efficient Panoptic Segmentation Network with Cross-layer Attention Fusion.

Chang, Chang, Tsai, Yan, ACCV 2020, in the order of its section 3.1: backbone, protohead, instance
head, semantic head, cross-layer attention fusion; then inference and training (3.2). Where paper
and published code differ this follows the code, so that its weights work: a fourth block and a
group norm in the protohead, the instance head on F3..F7. Defects of the code are not kept, which
is said where it matters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from panoptic_ros.networks.backbones import ResNet
from panoptic_ros.networks.base import (
    FrameSize,
    PanopticNetwork,
    PanopticTarget,
    PredictionOptions,
    SegmentMap,
)
from panoptic_ros.networks.epsnet_boxes import (
    crop_window,
    decode_boxes,
    has_area,
    make_anchors,
    pairwise_iou,
)
from panoptic_ros.networks.epsnet_loss import multibox_loss, semantic_loss
from panoptic_ros.networks.masks import Mask, enlarged_masks
from panoptic_ros.networks.merging import merge_panoptic
from panoptic_ros.networks.upsampling import Step, upsampled_argmax

CANDIDATE_SCORE = 0.05
CANDIDATES_PER_CLASS = 200
NMS_THRESHOLD = 0.5
MAX_INSTANCES = 100
MASKS_PER_CHUNK = 20


class EPSNet(PanopticNetwork):
    """The whole network.

    The image has to fill the network input (``resize: stretch``): anchors, boxes and maps are
    relative to it.

    Args:
        thing_ids: Category ids of the thing classes.
        stuff_ids: Category ids of the stuff classes.
        backbone: Name of the ResNet.
        freeze_norm: Keep the backbone's batch norm as it was loaded: statistics and affine.
        channels: Of the pyramid and the heads.
        prototypes: k.
        anchor_sizes: Of F3..F7, as parts of the input's sides; the paper's are 24..384 of 550.
        square_anchors: Give all anchors the height of their width; the released ResNet-50
            was trained so.
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
        square_anchors: bool = False,
    ) -> None:
        super().__init__(thing_ids, stuff_ids)
        self.freeze_norm = freeze_norm
        self.anchor_sizes, self.square_anchors = tuple(anchor_sizes), square_anchors
        self.backbone = ResNet(backbone)
        self.pyramid = Pyramid(self.backbone.channels[1:], channels)
        self.fusion = CrossLayerAttention(channels)
        self.protohead = protohead(channels, prototypes)
        self.instance_head = InstanceHead(channels, len(thing_ids) + 1, prototypes)
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
            [f.shape[-2:] for f in features], self.anchor_sizes, self.square_anchors
        )
        return {
            "class_logits": logits,
            "box_deltas": deltas,
            "coefficients": coefficients,
            "anchors": anchors.to(images.device).expand(len(images), -1, -1),
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
        found = self.detect(raw, options.score_threshold)
        segments = []
        for i, size in enumerate(sizes):
            scores, labels, boxes, coefficients = (field[i] for field in found)
            if not scores.is_cuda:  # counting the slots in use needs no synchronisation there
                used = int((scores > 0).sum())
                scores, labels, boxes, coefficients = (
                    field[:used] for field in (scores, labels, boxes, coefficients)
                )
            usable = (scores > 0) & has_area(boxes, size.output)
            covered = torch.zeros(size.output, dtype=torch.bool, device=scores.device)
            made = self.masks(raw["prototypes"][i], coefficients, boxes, size.output)
            nothing = torch.zeros_like(covered, dtype=torch.int16)
            masks = _joined(made, usable, covered)
            slots = merge_panoptic(masks, nothing, options.overlap_threshold)
            stuff = self.stuff_map(
                raw["prototypes"][i], raw["semantic_coefficients"][i], covered & (slots == 0)
            )
            stuff = torch.where(stuff > 0, stuff + len(scores), 0)
            class_ids = torch.cat((self.thing_ids[labels] * usable, self.stuff_ids))
            scores = torch.cat((scores, scores.new_ones(len(self.stuff_ids))))
            segments.append(SegmentMap(torch.where(slots > 0, slots, stuff), class_ids, scores))
        return segments

    def detect(self, raw: dict[str, Tensor], score_threshold: float) -> Instances:
        """Choose the instances of a batch by fast NMS, in fixed slots.

        An anchor takes part when its best class is above ``CANDIDATE_SCORE``. Within a class a
        box goes when a better one, even one that went itself, overlaps it by more than
        ``NMS_THRESHOLD``; the best ``MAX_INSTANCES`` over all classes above the threshold stay.
        """
        probability = raw["class_logits"].softmax(-1)[..., 1:]
        best = probability.amax(-1, keepdim=True)
        probability = torch.where(best > CANDIDATE_SCORE, probability, 0)
        number = min(CANDIDATES_PER_CLASS, probability.shape[1])
        if not probability.is_cuda:  # counting what is left needs no synchronisation there
            above = (probability > score_threshold).any(0)
            left = torch.nonzero(above.any(1)).flatten() if above.any() else torch.zeros(1).long()
            probability = probability[:, left]
            raw = {name: raw[name][:, left] for name in ("box_deltas", "anchors", "coefficients")}
            number = min(number, max(int((probability > score_threshold).sum(1).max()), 1))
        scores, anchors = probability.transpose(1, 2).topk(number)  # (B, N_things, number)
        boxes = decode_boxes(raw["box_deltas"], raw["anchors"])
        chosen = anchors.flatten(1)[..., None]
        of_class = boxes.gather(1, chosen.expand(-1, -1, 4)).unflatten(1, scores.shape[1:])
        overlap = pairwise_iou(of_class).triu(1).amax(-2)
        scores = torch.where((overlap <= NMS_THRESHOLD) & (scores > score_threshold), scores, 0)

        best, flat = scores.flatten(1).topk(min(MAX_INSTANCES, scores[0].numel()))
        anchor = anchors.flatten(1).gather(1, flat)[..., None]
        coefficients = raw["coefficients"]
        return Instances(
            best,
            flat // number,
            boxes.gather(1, anchor.expand(-1, -1, 4)),
            coefficients.gather(1, anchor.expand(-1, -1, coefficients.shape[-1])),
        )

    def masks(
        self, prototypes: Tensor, coefficients: Tensor, boxes: Tensor, size: tuple[int, int]
    ) -> Iterator[Mask]:
        """Make the masks of one image's instances, a few at a time.

        Args:
            prototypes: (k, h, w).
            coefficients: (K, k).
            boxes: (K, 4), relative (x1, y1, x2, y2).
            size: Rows and columns of the masks.

        Yields:
            The mask of each instance.
        """
        grid = prototypes.shape[-2:]
        for start in range(0, len(boxes), MASKS_PER_CHUNK):
            chunk = slice(start, start + MASKS_PER_CHUNK)
            logits = torch.einsum("nk,khw->nhw", coefficients[chunk], prototypes)
            cropped = logits.sigmoid() * crop_window(boxes[chunk], grid)
            yield from enlarged_masks(cropped, 0.5, [Step.to(size, grid)])

    def stuff_map(self, prototypes: Tensor, coefficients: Tensor, covered: Tensor) -> Tensor:
        """Return the stuff class of every pixel: int16, (H, W), 0 for none, else 1..N_stuff.

        S = P Y (equation 1; its softmax does not change the argmax). "Other" competes as class 0
        and loses 1 where an instance lies, so that stuff shows through gaps between them. The
        published code leaves the untrained background there when an image has no instance.

        Args:
            prototypes: (k, h, w).
            coefficients: (k, N_stuff + 2).
            covered: bool, (H, W), where there is any instance.
        """
        logits = torch.einsum("kc,khw->chw", coefficients, prototypes)
        logits = torch.cat((logits[-1:], logits[1:-1]))
        step = Step.to(tuple(covered.shape), logits.shape[1:])
        return upsampled_argmax(logits, step, covered=covered)

    # Training (section 3.2)

    def loss(self, images: Tensor, targets: Sequence[PanopticTarget]) -> dict[str, Tensor]:
        """Return the terms of L = 1 L_c + 1.5 L_b + 6.125 L_m + 2 L_s, weighted.

        Images without instances take part; the published code skips them.
        """
        raw = {name: value.float() for name, value in self(images).items()}
        instances = [self._instances(target) for target in targets]
        classes = [
            self.class_index(t.class_ids[i], self.thing_ids)
            for t, i in zip(targets, instances, strict=True)
        ]
        terms = multibox_loss(raw, targets, instances, classes)
        truth = torch.stack([self._semantic_target(target) for target in targets])
        return terms | {"semantic": semantic_loss(raw, truth)}

    def _instances(self, target: PanopticTarget) -> Tensor:
        known = self.class_index(target.class_ids, self.thing_ids) >= 0
        return target.instances[known[target.instances]]

    def _semantic_target(self, target: PanopticTarget) -> Tensor:
        """0 for void, 1..N_stuff, N_stuff + 1 for things, crowds included: int64, (H, W)."""
        index = self.class_index(target.class_ids, self.stuff_ids) + 1
        thing = self.class_index(target.class_ids, self.thing_ids) >= 0
        index = index.where(~thing, len(self.stuff_ids) + 1)
        return torch.cat((index.new_zeros(1), index))[target.slots]


class Instances(NamedTuple):
    """K instances per image, best first; empty slots have score 0.

    Attributes:
        scores: float32, (B, K).
        labels: int64, (B, K), thing class index.
        boxes: float32, (B, K, 4), relative (x1, y1, x2, y2), not clipped.
        coefficients: float32, (B, K, k).
    """

    scores: Tensor
    labels: Tensor
    boxes: Tensor
    coefficients: Tensor


class Pyramid(nn.Module):
    """FPN that gives F3..F7: bilinear top-down path, ReLU after the 3x3 convolutions of F3..F5."""

    def __init__(self, in_channels: Sequence[int], channels: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)
        self.output = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels
        )
        self.down = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, stride=2, padding=1) for _ in range(2)
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return F3..F7 of C3, C4, C5."""
        outputs: list[Tensor] = []
        x = None
        for feature, lateral, output in zip(
            reversed(maps), reversed(self.lateral), reversed(self.output), strict=True
        ):
            side = lateral(feature)
            if x is not None:
                side = side + F.interpolate(x, size=side.shape[-2:], mode="bilinear")
            x = side
            outputs.insert(0, F.relu(output(x)))
        for down in self.down:
            outputs.append(down(outputs[-1]))
        return outputs


def protohead(channels: int, prototypes: int) -> nn.Sequential:
    """Return the head that makes the k prototypes at 1/4 from Z at 1/8; not negative."""
    blocks = [_block(channels) for _ in range(4)]
    return nn.Sequential(
        *blocks[0],
        *blocks[1],
        *blocks[2],
        nn.Upsample(scale_factor=2, mode="bilinear"),
        *blocks[3],
        nn.Conv2d(channels, prototypes, 1),
        nn.GroupNorm(prototypes, prototypes),
        nn.ReLU(inplace=True),
    )


class InstanceHead(nn.Module):
    """Class, box and mask coefficients of 3 anchors per cell, shared by F3..F7."""

    def __init__(self, channels: int, classes: int, prototypes: int) -> None:
        super().__init__()
        self.block = nn.Sequential(*_block(channels))
        self.classes = nn.Conv2d(channels, 3 * classes, 3, padding=1)
        self.boxes = nn.Conv2d(channels, 3 * 4, 3, padding=1)
        self.masks = nn.Conv2d(channels, 3 * prototypes, 3, padding=1)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return class logits, box deltas and mask coefficients (-1..1) over all anchors."""
        blocks = [self.block(f) for f in features]
        logits, deltas, coefficients = (
            torch.cat([_per_anchor(branch(b), 3) for b in blocks], dim=1)
            for branch in (self.classes, self.boxes, self.masks)
        )
        return logits, deltas, coefficients.tanh()


class SemanticHead(nn.Module):
    """Mask coefficients of the semantic classes from F7, averaged over its positions."""

    def __init__(self, channels: int, classes: int, prototypes: int) -> None:
        super().__init__()
        self.prototypes = prototypes
        convolution, norm, relu = _block(channels)
        convolution.padding = (0, 0)
        self.layers = nn.Sequential(
            convolution, norm, relu, nn.Conv2d(channels, prototypes * classes, 1)
        )

    def forward(self, f7: Tensor) -> Tensor:
        """Return Y (B, k, N_stuff + 2), -1..1."""
        if min(f7.shape[-2:]) < 3:
            raise ValueError(
                f"the semantic head needs 3 x 3 cells at 1/128, got {tuple(f7.shape[-2:])}; "
                "use a resolution of more than 256 pixels a side"
            )
        return self.layers(f7).tanh().mean((2, 3)).unflatten(1, (self.prototypes, -1))


class CrossLayerAttention(nn.Module):
    """Z = F3 + A(F3, F3) + A(F3, F4) + A(F3, F5), one block for all (equations 2 to 5)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.query = nn.Conv2d(channels, half, 1)  # theta
        self.key = nn.Conv2d(channels, half, 1)  # phi
        self.value = nn.Conv2d(channels, half, 1)  # h
        self.out = nn.Conv2d(half, channels, 1)  # v

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return Z of F3, F4, F5, ..."""
        target = features[0]
        query = _positions(self.query(target))
        z = target
        for source in features[:3]:
            # Scores are not scaled by 1 / sqrt(d). Never materialised: they are quadratic.
            attended = F.scaled_dot_product_attention(
                query, _positions(self.key(source)), _positions(self.value(source)), scale=1.0
            )
            attended = attended[:, 0].transpose(1, 2).unflatten(2, target.shape[-2:])
            z = z + self.out(attended)
        return z


def _joined(masks: Iterator[Mask], usable: Tensor, union: Tensor) -> Iterator[Mask]:
    """Pass the usable masks on one by one, so that they need not exist at once, and join them."""
    for mask, use in zip(masks, usable, strict=True):
        mask.inside.logical_and_(use)
        union[mask.rows, mask.columns] |= mask.inside
        yield mask


def _positions(x: Tensor) -> Tensor:
    """(B, C, H, W) to (B, 1, H * W, C): a sequence with one head."""
    return x.flatten(2).transpose(1, 2)[:, None].contiguous()


def _block(channels: int) -> tuple[nn.Conv2d, nn.GroupNorm, nn.ReLU]:
    return (
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.GroupNorm(min(32, channels // 4), channels),
        nn.ReLU(inplace=True),
    )


def _per_anchor(x: Tensor, anchors: int) -> Tensor:
    """(B, anchors * C, H, W) to (B, H * W * anchors, C)."""
    return x.permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, x.shape[1] // anchors))
