"""Run the node on a recorded or synthetic drive and show what it saw; ROS-free parts."""
