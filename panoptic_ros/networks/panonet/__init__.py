"""PanoNet (Chen et al., 2020)."""

from panoptic_ros.networks.panonet.network import PanoNet

__all__ = ["PanoNet"]
