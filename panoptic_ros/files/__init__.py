"""Images, videos and bags, in and out; no ROS."""
