"""The authors' checkpoint of "Real-Time Panoptic Segmentation from Dense Detections".

A plain state dict. The published file was written with a torchvision whose pyramid had one module
level less (``inner_blocks.0.weight``); files written with a newer one have ``inner_blocks.0.0``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

CONFIGURATIONS = ("dense_detection_cityscapes", "dense_detection_coco")

_PREFIXES = {
    "backbone.body.": "backbone.",
    "backbone.fpn.": "fpn.",
    "panoptic_head.cls_tower.": "semantic_tower.",
    "panoptic_head.bbox_tower.": "localisation_tower.",
    "panoptic_head.cls_logits.": "semantic.",
    "panoptic_head.box_cls_logits.": "box_class.",
    "panoptic_head.bbox_pred.": "offsets.",
    "panoptic_head.": "",  # centerness, levelness, scales
}
_OLD_PYRAMID = re.compile(r"^(fpn\.(?:inner|layer)_blocks\.\d)\.(weight|bias)$")
_SCALE = re.compile(r"^(scales\.\d)\.scale$")


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of the authors' network to those of ``DenseDetection``."""
    return {_rename(key): value for key, value in state.items()}


def _rename(key: str) -> str:
    prefix = next((p for p in _PREFIXES if key.startswith(p)), None)
    if prefix is not None:
        key = _PREFIXES[prefix] + key[len(prefix) :]
    return _SCALE.sub(r"\1", _OLD_PYRAMID.sub(r"\1.0.\2", key))
