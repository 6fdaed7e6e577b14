"""The authors' checkpoints of EPSNet: plain state dicts.

Old files hold stray keys of an earlier backbone (``backbone.layer1...``), which are dropped. The
released ResNet-50 was trained with square anchors, which is in its configuration.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

CONFIGURATIONS = ("epsnet_coco", "epsnet_coco_r50")

_STRAY = re.compile(r"^backbone\.layer\d")
_RULES = (
    (r"^backbone\.layers\.(\d)\.", lambda m: f"backbone.layer{int(m[1]) + 1}."),
    # The authors list the pyramid from the top.
    (r"^fpn\.lat_layers\.(\d)\.", lambda m: f"pyramid.lateral.{2 - int(m[1])}."),
    (r"^fpn\.pred_layers\.(\d)\.", lambda m: f"pyramid.output.{2 - int(m[1])}."),
    (r"^fpn\.downsample_layers\.", "pyramid.down."),
    (r"^CALayer\.(query|key|value|out)_conv\.", r"fusion.\1."),
    (r"^proto_net\.", "protohead."),
    (r"^prediction_layers\.0\.upfeature\.", "instance_head.block."),
    (r"^prediction_layers\.0\.conf_layer\.", "instance_head.classes."),
    (r"^prediction_layers\.0\.bbox_layer\.", "instance_head.boxes."),
    (r"^prediction_layers\.0\.mask_layer\.", "instance_head.masks."),
    (r"^semantic_seg_conv\.", "semantic_head.layers."),
)


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of the authors' network to those of ``EPSNet``.

    The semantic coefficients are ordered by prototype, then class, in both.
    """
    return {_rename(key): value for key, value in state.items() if not _STRAY.match(key)}


def _rename(key: str) -> str:
    for pattern, name in _RULES:
        renamed, matches = re.subn(pattern, name, key)
        if matches:
            return renamed
    return key
