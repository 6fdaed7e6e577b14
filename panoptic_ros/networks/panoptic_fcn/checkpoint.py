"""The authors' checkpoints of Panoptic FCN, written by detectron2."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from torch import Tensor

CONFIGURATIONS = (
    "panoptic_fcn_coco",
    "panoptic_fcn_coco_star",
    "panoptic_fcn_cityscapes",
    "panoptic_fcn_cityscapes_star",
    "panoptic_fcn_mapillary",
)


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of the authors' network to those of ``PanopticFCN``.

    Keys that are not the authors' keep their names. The embeddings are 1x1 convolutions there
    and linear layers here.
    """
    renamed = {_rename(key): value for key, value in state.items()}
    for name in ("thing_embedding.weight", "stuff_embedding.weight"):
        if name in renamed:
            renamed[name] = renamed[name].flatten(1)
    return renamed


def _trunk(match: re.Match[str]) -> str:
    """Stage, block and layer of the ResNet: torchvision counts stages from 1 and splits norms."""
    stage, block, layer, norm = match.groups()
    if layer == "shortcut":
        layer = "downsample.1" if norm else "downsample.0"
    elif norm:
        layer = layer.replace("conv", "bn")
    return f"backbone.layer{int(stage) - 1}.{block}.{layer}."


def _pyramid(match: re.Match[str]) -> str:
    blocks = {"lateral": "inner_blocks", "output": "layer_blocks"}[match[1]]
    return f"fpn.{blocks}.{int(match[2]) - 2}.0."


def _semantic(match: re.Match[str]) -> str:
    """There every second module up-samples; here convolution, norm, ReLU and that are four."""
    return f"semantic_fpn.{match[1]}.{2 * int(match[2]) + bool(match[3])}."


def _with_norm(match: re.Match[str]) -> str:
    """Layers with a norm: convolution, norm and ReLU are three modules."""
    head, layer, norm = match[1], int(match[2]) - 1, bool(match["norm"])
    return f"{head}.tower.{3 * layer + norm}." + _deformable(match)


def _without_norm(match: re.Match[str]) -> str:
    """Layers without a norm: convolution and ReLU are two modules."""
    return f"{match[1]}.tower.{2 * (int(match[2]) - 1)}." + _deformable(match)


def _deformable(match: re.Match[str]) -> str:
    if match["norm"]:
        return ""
    return {"offset_mask_conv.": "offset_mask.", "dcnv2.": "conv.", None: ""}[match["deformable"]]


_LAYER = r"(\d)\.(?P<deformable>offset_mask_conv\.|dcnv2\.)?(?P<norm>norm\.)?"
_RULES: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"backbone\.bottom_up\.stem\.conv1\.norm\.", "backbone.bn1."),
    (r"backbone\.bottom_up\.stem\.conv1\.", "backbone.conv1."),
    (r"backbone\.bottom_up\.res(\d)\.(\d+)\.(shortcut|conv\d)\.(norm\.)?", _trunk),
    (r"backbone\.fpn_(lateral|output)(\d)\.", _pyramid),
    (r"backbone\.top_block\.", "fpn.extra_blocks."),
    (r"semantic_fpn\.(p\d)\.(\d)\.(norm\.)?", _semantic),
    (r"(position_head)\.position_head\.position_head_head_" + _LAYER, _with_norm),
    (r"position_head\.out_inst\.", "position_head.centers."),
    (r"position_head\.out_sem\.", "position_head.regions."),
    (r"(kernel_head)\.kernel_head\.kernel_head_head_" + _LAYER, _with_norm),
    (r"kernel_head\.out_conv\.", "kernel_head.kernels."),
    (r"(feature_encoder)\.encode_head\.encode_head_head_" + _LAYER, _without_norm),
    (r"(thing|stuff)_generator\.embed_extractor\.", r"\1_embedding."),
)


def _rename(key: str) -> str:
    for pattern, name in _RULES:
        renamed, matches = re.subn("^" + pattern, name, key)
        if matches:
            return renamed
    return key
