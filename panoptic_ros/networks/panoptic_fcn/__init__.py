"""Fully Convolutional Networks for Panoptic Segmentation (Li et al., CVPR 2021)."""

from panoptic_ros.networks.panoptic_fcn.network import PanopticFCN

__all__ = ["PanopticFCN"]
