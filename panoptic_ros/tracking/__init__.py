"""Things that keep their number from image to image. Needs SciPy and no ROS."""

from panoptic_ros.tracking.tracker import Tracker

__all__ = ["Tracker"]
