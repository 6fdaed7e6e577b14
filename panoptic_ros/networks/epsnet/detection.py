"""From the dense outputs of EPSNet's instance head to instances: fast NMS, as in YOLACT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from panoptic_ros.networks.epsnet.boxes import decode_boxes, pairwise_iou
from panoptic_ros.ops.slots import best_places, places_in_use, slots_in_use

CANDIDATE_SCORE = 0.05
CANDIDATES_PER_CLASS = 200
NMS_THRESHOLD = 0.5
MAX_INSTANCES = 100


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

    def of_image(self, index: int) -> Instances:
        """Return the slots of one image that are worth a look, (K, ...)."""
        number = slots_in_use(self.scores[index] > 0)
        return Instances(*(field[index, :number] for field in self))


def fast_nms(raw: Mapping[str, Tensor], score_threshold: float) -> Instances:
    """Choose the instances of a batch, in fixed slots.

    An anchor takes part when its best class is above ``CANDIDATE_SCORE``. Within a class a
    box goes when a better one, even one that went itself, overlaps it by more than
    ``NMS_THRESHOLD``; the best ``MAX_INSTANCES`` over all classes above the threshold stay.

    Args:
        raw: What ``EPSNet.forward`` returned, in float32.
        score_threshold: On the class probability, 0..1.
    """
    probability = raw["class_logits"].softmax(-1)[..., 1:]
    best = probability.amax(-1, keepdim=True)
    probability = torch.where(best > CANDIDATE_SCORE, probability, 0)
    number = min(CANDIDATES_PER_CLASS, probability.shape[1])
    above = probability > score_threshold
    left = places_in_use(above.any(2).any(0), at_least=1)
    probability = probability[:, left]
    raw = {name: raw[name][:, left] for name in ("box_deltas", "anchors", "coefficients")}
    number = min(number, max(slots_in_use(above.transpose(1, 2)), 1))
    scores, anchors = best_places(probability.transpose(1, 2), number)  # (B, N_things, number)
    boxes = decode_boxes(raw["box_deltas"], raw["anchors"])
    chosen = anchors.flatten(1)[..., None]
    of_class = boxes.gather(1, chosen.expand(-1, -1, 4)).unflatten(1, scores.shape[1:])
    overlap = pairwise_iou(of_class).triu(1).amax(-2)
    scores = torch.where((overlap <= NMS_THRESHOLD) & (scores > score_threshold), scores, 0)

    best, flat = best_places(scores.flatten(1), min(MAX_INSTANCES, scores[0].numel()))
    anchor = anchors.flatten(1).gather(1, flat)[..., None]
    coefficients = raw["coefficients"]
    return Instances(
        best,
        flat // number,
        boxes.gather(1, anchor.expand(-1, -1, 4)),
        coefficients.gather(1, anchor.expand(-1, -1, coefficients.shape[-1])),
    )
