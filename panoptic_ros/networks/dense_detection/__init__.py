"""Real-Time Panoptic Segmentation from Dense Detections (Hou et al., CVPR 2020)."""

from panoptic_ros.networks.dense_detection.network import DenseDetection

__all__ = ["DenseDetection"]
