"""PanoNet: real-time panoptic segmentation by position-sensitive feature embedding.

Chen, Wang, Hebert, arXiv 2008.00192, in the paper's order: network (III-A), loss (III-B),
position-sensitive embedding (III-C), clustering (III-D). The authors published no code. Where
the paper is silent, the docstrings say what is done here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from panoptic_ros.networks.base import PanopticNetwork
from panoptic_ros.networks.layers.coordinates import append_coordinates
from panoptic_ros.networks.layers.icnet import STRIDES, ICNet
from panoptic_ros.networks.panonet.clusters import (
    cluster_scores,
    nearest_of_class,
    pixels_of_other_class,
)
from panoptic_ros.ops.mean_shift import mean_shift
from panoptic_ros.ops.upsampling import (
    Step,
    channel_argmax,
    enlarge,
    resize_nearest,
    upsampled_argmax,
)
from panoptic_ros.truth import FrameSize, PanopticTarget, PredictionOptions, SegmentMap

_STRIDE = STRIDES[0]  # of the semantic logits and the embedding that are predicted from
_SCALE_WEIGHTS = (1.0, 0.4, 0.16)  # lambda_t of equations 1 and 6 at 1/4, 1/8, 1/16
_DELTA_V, _DELTA_D, _DELTA_R = 0.25, 1.0, 6.0  # margins of equations 2 to 4
_ALPHA, _BETA, _GAMMA = 1.0, 1.0, 0.1  # weights of equation 5


class PanoNet(PanopticNetwork):
    """Two ICNets: one tells classes apart, the other gives an embedding that tells instances.

    Args:
        thing_ids: Category ids of the thing classes.
        stuff_ids: Category ids of the stuff classes. The semantic output has the things first.
        width: Factor on ICNet's widths; 1.0 is the paper's.
        embedding: Channels of the embedding; the paper's 12.
        coordinates: Whether the instance branch sees two coordinate maps (-1..1; the paper does
            not give the range). Off in the first stage of training (III-C).
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
        self.semantic = ICNet(3, len(thing_ids) + len(stuff_ids), width)
        self.instance = ICNet(5 if coordinates else 3, embedding, width)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Run both branches.

        Returns:
            ``semantic`` (B, N_things + N_stuff, H / 4, W / 4) logits and ``embedding``
            (B, 12, H / 4, W / 4).
        """
        return {
            "semantic": self.semantic(images),
            "embedding": self.instance(self._instance_input(images)),
        }

    def _instance_input(self, images: Tensor) -> Tensor:
        return append_coordinates(images) if self.coordinates else images

    # Loss (III-B)

    def loss(self, images: Tensor, targets: Sequence[PanopticTarget]) -> dict[str, Tensor]:
        """Return L_sem (equation 1) and the terms of L_inst (equation 6), weighted.

        Truth is reduced to each scale by nearest neighbour. The clusters of equations 2 to 4 are
        the single things of an image, all classes together; pixels of anything else take no part
        in L_inst, void takes none in L_sem. Each image counts alike.
        """
        truth = torch.stack([self._semantic_target(target) for target in targets])
        terms = {"semantic": images.new_zeros((), dtype=torch.float32)}
        for weight, stride, logits in zip(
            _SCALE_WEIGHTS, STRIDES, self.semantic.cascade(images), strict=True
        ):
            reduced = _reduce(truth, stride)
            labelled = (reduced >= 0).sum().clamp(min=1)
            total = F.cross_entropy(logits.float(), reduced, ignore_index=-1, reduction="sum")
            terms["semantic"] = terms["semantic"] + weight * total / labelled
        if self.train_instances:
            terms |= self._instance_loss(images, targets)
        return terms

    def _semantic_target(self, target: PanopticTarget) -> Tensor:
        """Class index of every pixel, things first: int64, (H, W), -1 for void."""
        classes = torch.cat((self.thing_ids, self.stuff_ids))
        index = self.class_index(target.class_ids, classes)
        return torch.cat((index.new_full((1,), -1), index))[target.slots]

    def _instance_loss(
        self, images: Tensor, targets: Sequence[PanopticTarget]
    ) -> dict[str, Tensor]:
        outputs = self.instance.cascade(self._instance_input(images))
        terms = {n: images.new_zeros((), dtype=torch.float32) for n in ("var", "dist", "reg")}
        for weight, stride, embeddings in zip(_SCALE_WEIGHTS, STRIDES, outputs, strict=True):
            for embedding, target in zip(embeddings.float(), targets, strict=True):
                clusters = _reduce(self._cluster_target(target), stride).flatten()
                losses = discriminative_loss(
                    embedding.flatten(1).T, clusters, len(target.class_ids)
                )
                for name, factor, loss in zip(terms, (_ALPHA, _BETA, _GAMMA), losses, strict=True):
                    terms[name] = terms[name] + weight * factor * loss / len(targets)
        return terms

    def _cluster_target(self, target: PanopticTarget) -> Tensor:
        """Segment of every pixel of a single thing: int64, (H, W), -1 elsewhere."""
        known = self.class_index(target.class_ids, self.thing_ids) >= 0
        single = target.is_thing & ~target.is_crowd & known
        index = torch.arange(len(single), device=single.device).where(single, -1)
        return torch.cat((index.new_full((1,), -1), index))[target.slots]

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
        every_cell = torch.arange(len(cell_class), device=cell_class.device)
        own = every_cell if cell_class.is_cuda else every_cell[cell_class < things]
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
        pixels, cells = pixels_of_other_class(pixel_class, best_there, _STRIDE)
        other_class = pixel_class.view(-1)[pixels].long()
        wanted = None
        if not cell_class.is_cuda:
            wanted = torch.zeros(logits.shape, dtype=torch.bool)
            wanted[cell_class, every_cell] = True
            wanted[other_class, cells] = True
        nearest = nearest_of_class(features, self.bandwidths, centers, center_groups, wanted)
        clusters = nearest[groups.clamp(min=0), own]
        scores = cluster_scores(logits.index_select(1, own), groups, clusters, len(centers))
        keep = (center_groups >= 0) & (scores >= options.score_threshold)
        number = torch.arange(1, len(centers) + 1, device=keep.device)
        of_cluster = F.pad(number * keep, (0, 1))  # the last for none, -1

        def slots_of(classes: Tensor, cells: Tensor) -> Tensor:
            of_thing = of_cluster[nearest[classes.clamp(max=things - 1), cells]]
            of_stuff = len(centers) + 1 + classes - things
            return torch.where(classes < things, of_thing, of_stuff).to(torch.int16)

        slots = enlarge(slots_of(cell_class, every_cell).view(grid), _STRIDE, size.valid)
        slots.view(-1)[pixels] = slots_of(other_class, cells)
        class_ids = torch.cat((self.thing_ids[center_groups.clamp(min=0)] * keep, self.stuff_ids))
        scores = torch.cat((scores, scores.new_ones(len(self.stuff_ids))))
        return SegmentMap(resize_nearest(slots, size.output).int(), class_ids, scores)


def discriminative_loss(
    points: Tensor, clusters: Tensor, number: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return L_var, L_dist and L_reg of one image (equations 2, 3 and 4), unweighted.

    Equation 3 is a hinge: the plus stands outside the printed bracket. Equation 4 is printed
    with a 1 / N_c without a sum over pixels, taken for a slip: it is the mean over clusters.

    Args:
        points: float, (N, D), embeddings x_i.
        clusters: int64, (N,): cluster of each point, or -1.
        number: Clusters are 0..number - 1; those without a point do not count.
    """
    inside = clusters >= 0
    index = clusters.where(inside, number)
    size = torch.bincount(index, minlength=number + 1)[:number]
    sums = points.new_zeros(number + 1, points.shape[1]).index_add(0, index, points)[:number]
    means = sums / size.clamp(min=1)[:, None]
    present = size > 0
    count = present.sum()

    away = _norm(means[index.clamp(max=max(number - 1, 0))] - points) if number else points[:, 0]
    pull = (away - _DELTA_V).clamp(min=0) ** 2 * inside
    pulls = points.new_zeros(number + 1).index_add(0, index, pull)[:number]
    variance = (pulls / size.clamp(min=1)).sum() / count.clamp(min=1)

    apart = _norm(means[:, None] - means[None])
    pairs = present[:, None] & present[None] & ~torch.eye(number, device=points.device).bool()
    push = (2 * _DELTA_D - apart).clamp(min=0) ** 2 * pairs
    distance = push.sum() / (count * (count - 1)).clamp(min=1)

    far = (_norm(means) - _DELTA_R).clamp(min=0) ** 2 * present
    return variance, distance, far.sum() / count.clamp(min=1)


def _norm(vectors: Tensor) -> Tensor:
    """L2 norm over the last dimension, with a gradient of 0 instead of NaN at 0."""
    squares = (vectors**2).sum(-1)
    positive = squares > 0
    return torch.where(positive, squares.where(positive, 1).sqrt(), 0)


def _reduce(truth: Tensor, stride: int) -> Tensor:
    """Reduce index maps (..., H, W) to every ``stride``-th pixel, at the cells' centres."""
    return truth[..., stride // 2 :: stride, stride // 2 :: stride]
