"""Real-time panoptic segmentation of camera images for ROS 2.

This module imports neither torch nor ROS: users of ``panoptic_ros.msg`` pay for nothing else.
"""

from pkgutil import extend_path

# A build lays the generated panoptic_ros.msg elsewhere than this source tree; where the tree comes
# first on the path (a develop installation, Python started in the repository), msg is still found.
__path__ = extend_path(__path__, __name__)

__version__ = "0.1.0"
