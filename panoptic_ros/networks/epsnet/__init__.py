"""EPSNet (Chang et al., ACCV 2020)."""

from panoptic_ros.networks.epsnet.network import EPSNet

__all__ = ["EPSNet"]
