"""The contract that the five networks keep, and the tensors that pass through it.

``forward`` is a dense graph with static shapes; ``predict`` turns its tensors into segments on
the same device; ``loss`` compares them with the truth. Images are float, (B, 3, H, W), already in
the model's input format (channel order, mean, std), padded on the right and at the bottom.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from panoptic_ros.prediction import MAX_CLASS_ID
from panoptic_ros.truth import FrameSize, PanopticTarget, PredictionOptions, SegmentMap


class PanopticNetwork(nn.Module):
    """Base of the five networks.

    Args:
        thing_ids: Category ids of the thing classes; their order is that of the thing outputs.
        stuff_ids: Category ids of the stuff classes; their order is that of the stuff outputs.

    Attributes:
        size_divisor: Height and width of the input must be multiples of this.
        class_weights: float32, (256,): what the pixels of each category id count in the
            cross-entropy over classes. Ones, as in the papers; a recipe may change them.
    """

    size_divisor: int = 32

    def __init__(self, thing_ids: Sequence[int], stuff_ids: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("thing_ids", torch.tensor(list(thing_ids)).long(), persistent=False)
        self.register_buffer("stuff_ids", torch.tensor(list(stuff_ids)).long(), persistent=False)
        self.register_buffer("class_weights", torch.ones(MAX_CLASS_ID + 1), persistent=False)

    def padded_size(self, size: Sequence[int]) -> tuple[int, int]:
        """Return the (height, width) of the input for images of a size: the next multiples."""
        height, width = (-(-side // self.size_divisor) * self.size_divisor for side in size)
        return height, width

    @abstractmethod
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return named dense tensors, each with the batch as its first dimension."""

    @abstractmethod
    def predict(
        self, raw: dict[str, Tensor], sizes: Sequence[FrameSize], options: PredictionOptions
    ) -> list[SegmentMap]:
        """Turn what ``forward`` returned into one SegmentMap per image, at ``size.output``."""

    @abstractmethod
    def loss(self, images: Tensor, targets: Sequence[PanopticTarget]) -> dict[str, Tensor]:
        """Return the weighted terms of the loss by name, scalars; their sum is minimised."""

    def class_index(self, class_ids: Tensor, of: Tensor) -> Tensor:
        """Return the position of each category id within ``of`` (thing_ids or stuff_ids).

        Ids that are not in ``of`` give -1.
        """
        equal = class_ids[..., None] == of
        return torch.where(equal.any(-1), equal.to(torch.uint8).argmax(-1), -1)
