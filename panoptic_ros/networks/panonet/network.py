"""PanoNet: real-time panoptic segmentation by position-sensitive feature embedding.

Chen, Wang, Hebert, arXiv 2008.00192, in the paper's order: network (III-A), loss (III-B),
position-sensitive embedding (III-C), clustering (III-D). The authors published no code. Where
the paper is silent, the docstrings say what is done here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from panoptic_ros.networks.base import PanopticNetwork
from panoptic_ros.networks.layers.backbones import build_backbone
from panoptic_ros.networks.layers.coordinates import append_coordinates
from panoptic_ros.networks.layers.icnet import STRIDES, ICNet, TrunkCascade
from panoptic_ros.ops.mean_shift import mean_shift
from panoptic_ros.ops.nearest import (
    Classes,
    cluster_scores,
    nearest_of_class,
    paint_clusters,
)
from panoptic_ros.ops.slots import places_in_use
from panoptic_ros.ops.upsampling import (
    Step,
    channel_argmax,
    resize_nearest,
    upsampled_argmax,
)
from panoptic_ros.truth import (
    ClassLogits,
    FrameSize,
    PanopticTarget,
    PredictionOptions,
    SegmentMap,
)

_STRIDE = STRIDES[0]  # of the semantic logits and the embedding that are predicted from


class PanoNet(PanopticNetwork):
    """Two ICNets: one tells classes apart, the other gives an embedding that tells instances.

    Args:
        thing_ids: Category ids of the thing classes.
        stuff_ids: Category ids of the stuff classes. The semantic output has the things first.
        width: Factor on ICNet's widths; 1.0 is the paper's.
        backbone: Trunk that both branches share, see ``build_backbone``, each with a cascade of
            its own on it (``TrunkCascade``); empty for the paper's two ICNets.
        embedding: Channels of the embedding; the paper's 12.
        coordinates: Whether the instance branch sees two coordinate maps (-1..1; the paper does
            not give the range), beside the image or beside each map of the trunk. Off in the
            first stage of training (III-C).
        instances: Whether the instance branch is trained; off to train the semantic branch
            alone, whose weights the other starts from.
        bandwidth: Of the clustering, one value or one per thing class. The paper searches values
            slightly above delta_v = 0.25 on the training set and does not publish them.
        max_instances: Cluster centres per image at most.
        iterations: Steps of the mean shift.
        min_cluster_size: Clusters with fewer cells (at 1/4) within their bandwidth are left out
            and their pixels go to the nearest other one. The paper has no limit (1).

    Raises:
        ValueError: ``bandwidth`` has neither one value nor one per thing class.
    """

    def __init__(
        self,
        thing_ids: Sequence[int],
        stuff_ids: Sequence[int],
        *,
        width: float = 1.0,
        backbone: str = "",
        embedding: int = 12,
        coordinates: bool = True,
        instances: bool = True,
        bandwidth: float | Sequence[float] = 0.3,
        max_instances: int = 128,
        iterations: int = 30,
        min_cluster_size: int = 1,
    ) -> None:
        super().__init__(thing_ids, stuff_ids)
        values = [bandwidth] if isinstance(bandwidth, (int, float)) else list(bandwidth)
        if len(values) not in (1, len(thing_ids)):
            raise ValueError(
                f"bandwidth has {len(values)} values; expected 1 or {len(thing_ids)}, one per "
                "thing class"
            )
        bandwidths = torch.tensor(values, dtype=torch.float32).expand(len(thing_ids))
        self.register_buffer("bandwidths", bandwidths.clone(), persistent=False)
        self.coordinates, self.train_instances = coordinates, instances
        self.max_instances, self.iterations = max_instances, iterations
        self.min_cluster_size = min_cluster_size
        classes, added = len(thing_ids) + len(stuff_ids), 2 if coordinates else 0
        if backbone:
            self.backbone = build_backbone(backbone)
            channels = self.backbone.channels
            self.semantic = TrunkCascade(channels, classes, width)
            self.instance = TrunkCascade([c + added for c in channels], embedding, width)
        else:
            self.backbone = None
            self.semantic = ICNet(3, classes, width)
            self.instance = ICNet(3 + added, embedding, width)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Run both branches.

        Returns:
            ``semantic`` (B, N_things + N_stuff, H / 4, W / 4) logits and ``embedding``
            (B, 12, H / 4, W / 4).
        """
        seen = self.seen(images)
        return {
            "semantic": self.semantic(seen),
            "embedding": self.instance(self.instance_input(seen)),
        }

    def seen(self, images: Tensor) -> Tensor | list[Tensor]:
        """Return what the semantic branch sees: the images, or C2..C5 of the trunk."""
        return images if self.backbone is None else self.backbone(images)

    def instance_input(self, seen: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
        """Return what the instance branch sees: the same, each with its coordinate maps."""
        if not self.coordinates:
            return seen
        if isinstance(seen, Tensor):
            return append_coordinates(seen)
        return [append_coordinates(x) for x in seen]

    def loss(self, images: Tensor, targets: Sequence[PanopticTarget]) -> dict[str, Tensor]:
        """Return L_sem and the terms of L_inst (equations 1 and 6); see ``training.loss``."""
        from panoptic_ros.networks.panonet.training import loss

        return loss(self, images, targets)

    # Clustering (III-D)

    @torch.no_grad()
    def predict(
        self, raw: dict[str, Tensor], sizes: Sequence[FrameSize], options: PredictionOptions
    ) -> list[SegmentMap]:
        """Take the class of each pixel, and cluster the embedding of each thing class.

        Clustering is at 1/4. A full-size pixel belongs to the cluster, among those of its own
        class, that is nearest to the embedding of its cell. Things and stuff cannot conflict and
        nothing is void. The slots are the clusters, then the stuff classes; the score of a
        cluster is its mean probability of its class, which the paper does not define, and
        clusters below ``options.score_threshold`` become void.
        """
        return [
            self._predict_image(semantic.float(), embedding.float(), size, options)
            for semantic, embedding, size in zip(
                raw["semantic"], raw["embedding"], sizes, strict=True
            )
        ]

    def _predict_image(
        self, semantic: Tensor, embedding: Tensor, size: FrameSize, options: PredictionOptions
    ) -> SegmentMap:
        things = len(self.thing_ids)
        grid = tuple(-(-side // _STRIDE) for side in size.valid)
        logits = semantic[:, : grid[0], : grid[1]].flatten(1)
        features = embedding[:, : grid[0], : grid[1]].flatten(1)
        best = channel_argmax(semantic)
        best_there = best[: grid[0], : grid[1]]
        cell_class = best_there.flatten().long()
        own = places_in_use(cell_class < things)
        groups = cell_class[own].where(cell_class[own] < things, -1)
        bandwidth = self.bandwidths[groups.clamp(min=0)]
        centers, center_groups = mean_shift(
            (features.index_select(1, own) / bandwidth).T.contiguous(),
            groups,
            self.max_instances,
            self.iterations,
            self.min_cluster_size,
        )
        pixel_class = upsampled_argmax(semantic, Step((_STRIDE, _STRIDE), size.valid), best=best)
        classes = Classes.of(pixel_class, best_there, _STRIDE)
        nearest = nearest_of_class(features, self.bandwidths, centers, center_groups, classes)
        clusters = nearest[groups.clamp(min=0), own]
        scores = cluster_scores(logits.index_select(1, own), groups, clusters, len(centers))
        keep = (center_groups >= 0) & (scores >= options.score_threshold)
        number = torch.arange(1, len(centers) + 1, device=keep.device)
        slots = paint_clusters(classes, nearest, number * keep)
        class_ids = torch.cat((self.thing_ids[center_groups.clamp(min=0)] * keep, self.stuff_ids))
        scores = torch.cat((scores, scores.new_ones(len(self.stuff_ids))))
        ids = torch.cat((self.thing_ids, self.stuff_ids))
        covered = (size.valid[0] / _STRIDE, size.valid[1] / _STRIDE)
        evidence = ClassLogits(semantic, ids, covered)
        return SegmentMap(resize_nearest(slots, size.output).int(), class_ids, scores, evidence)
