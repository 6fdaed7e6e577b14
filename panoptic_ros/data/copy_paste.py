"""Things of one image pasted into another: occlusions with exact truth.

Simple Copy-Paste (Ghiasi et al., CVPR 2021). What is pasted keeps its place in the image, so that
a person stays on the ground and as large as its distance makes it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from panoptic_ros.data.targets import compact_target
from panoptic_ros.truth import PanopticTarget

EDGE = 3  # pixels over which a pasted thing fades into the image
CONTEXT = 0.5  # what is occluded by more of the image than this is a poor example


def paste_things(
    image: Tensor,
    target: PanopticTarget,
    other_image: Tensor,
    other: PanopticTarget,
    at_most: int,
) -> tuple[Tensor, PanopticTarget]:
    """Paste a random choice of the things of another image, in front of everything.

    Chance comes from torch's global generator. What a pasted thing covers completely is gone.

    Args:
        image: uint8, (3, H, W).
        target: Its truth.
        other_image: uint8, of the same size.
        other: Its truth.
        at_most: Upper limit of the number of things to paste; between 0 and this are.

    Raises:
        ValueError: The images differ in size.
    """
    if image.shape != other_image.shape:
        raise ValueError(
            f"images of {tuple(image.shape[1:])} and {tuple(other_image.shape[1:])} pixels; "
            "pasting needs the same size: set crop_size"
        )
    instances = other.instances
    number = int(torch.randint(at_most + 1, ()))
    chosen = instances[torch.randperm(len(instances))[:number]]
    inside = torch.isin(other.slots, chosen + 1)
    if not inside.any() or inside.float().mean() > CONTEXT:
        return image, target
    segments = len(target.class_ids)
    slots = torch.where(inside, other.slots + segments, target.slots)
    return _blended(image, other_image, inside), compact_target(
        slots,
        torch.cat((target.class_ids, other.class_ids)),
        torch.cat((target.is_thing, other.is_thing)),
        torch.cat((target.is_crowd, other.is_crowd)),
    )


def _blended(image: Tensor, other: Tensor, inside: Tensor) -> Tensor:
    """Lay ``other`` over an image where ``inside`` is true, with soft edges."""
    weight = gaussian_blur(inside[None].float(), [EDGE, EDGE])
    return (image + (other.float() - image) * weight).round().to(torch.uint8)
