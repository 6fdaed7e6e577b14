"""Fast Panoptic Segmentation Network (de Geus et al., RA-L 2020)."""

from panoptic_ros.networks.fpsnet.network import FPSNet

__all__ = ["FPSNet"]
