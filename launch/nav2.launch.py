"""Start the node with what Nav2's semantic segmentation layer reads: mask, confidence, points.

    ros2 launch panoptic_ros nav2.launch.py image:=/camera/color/image_raw

Nav2 itself is started as ever, with config/consumers/nav2.yaml merged into its parameters. The
arguments of panoptic.launch.py work here too.
"""

from __future__ import annotations

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

ARGUMENTS = [
    DeclareLaunchArgument(
        "image",
        default_value="/camera/color/image_raw",
        description="Topic of the camera images.",
    ),
    DeclareLaunchArgument(
        "depth",
        default_value="/camera/aligned_depth_to_color/image_raw",
        description="Topic of depth images registered to them.",
    ),
    DeclareLaunchArgument(
        "camera_info",
        default_value="/camera/color/camera_info",
        description="Topic of the camera_info of both.",
    ),
]


def generate_launch_description() -> LaunchDescription:
    """Describe the launch."""
    node = str(Path(__file__).with_name("panoptic.launch.py"))
    return LaunchDescription(
        [*ARGUMENTS, IncludeLaunchDescription(PythonLaunchDescriptionSource(node))]
    )
