"""The five networks and the parts that two or more of them share.

A folder a paper: network.py tells it in order; heads, boxes and losses stand beside it.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from panoptic_ros.prediction import Category

if TYPE_CHECKING:
    from panoptic_ros.networks.base import PanopticNetwork

NETWORKS = {
    "fpsnet": "FPSNet",
    "dense_detection": "DenseDetection",
    "panonet": "PanoNet",
    "epsnet": "EPSNet",
    "panoptic_fcn": "PanopticFCN",
}
MAX_SETTING, MAX_DEPTH = 10_000, 100  # of channels, candidates and the like; of layers


def build_network(name: str, categories: Sequence[Category], **settings: Any) -> PanopticNetwork:
    """Build a network with fresh weights.

    Args:
        name: A key of ``NETWORKS``, which is also its module in this folder.
        categories: Classes to tell apart; things and stuff keep their order.
        settings: The network's own keyword arguments (depth, widths, ...).

    Raises:
        ValueError: The name or a setting is unknown; the message lists those there are.
    """
    if name not in NETWORKS:
        raise ValueError(f"unknown network {name!r}; there are {', '.join(NETWORKS)}")
    network_class = getattr(import_module(f"panoptic_ros.networks.{name}"), NETWORKS[name])
    known = set(inspect.signature(network_class).parameters) - {"thing_ids", "stuff_ids"}
    if unknown := set(settings) - known:
        raise ValueError(
            f"{name} has no setting {', '.join(sorted(unknown))}; "
            f"it has {', '.join(sorted(known))}"
        )
    for setting, value in settings.items():
        _check_size(setting, value)
    return network_class(
        thing_ids=[c.id for c in categories if c.is_thing],
        stuff_ids=[c.id for c in categories if not c.is_thing],
        **settings,
    )


def _check_size(name: str, value: Any) -> None:
    """Refuse what would take all memory before anything is allocated; raises ValueError."""
    if isinstance(value, list | tuple):
        for item in value:
            _check_size(name, item)
    limit = MAX_DEPTH if "depth" in name else MAX_SETTING
    if isinstance(value, int) and abs(value) > limit:
        raise ValueError(f"{name} is {value}; expected at most {limit}")
