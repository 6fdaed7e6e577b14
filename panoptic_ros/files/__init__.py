"""Images, videos and bags, in and out; no ROS."""

import os

from panoptic_ros.files.image_size import MAX_PIXELS

# OpenCV reads it once, when it is loaded: for the formats whose headers we do not read.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))
