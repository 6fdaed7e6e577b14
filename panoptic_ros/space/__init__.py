"""Things and pixels in space: from a depth image, labels and a pinhole camera. No ROS here."""
