"""Start the node and elevation_mapping_cupy, whose map gets a layer from ~/mask.

    ros2 launch panoptic_ros elevation_mapping.launch.py mask_classes:=road,sidewalk

elevation_mapping_cupy has to be installed; start:=false starts the node alone. The arguments of
panoptic.launch.py work here too.
"""

from __future__ import annotations

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from panoptic_ros.system import share_directory

CONFIG = share_directory() / "config" / "consumers" / "elevation_mapping.yaml"

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
        description="Topic of the camera_info of both, as in config/consumers.",
    ),
    DeclareLaunchArgument(
        "mask_classes",
        default_value="road,sidewalk",
        description="Names or ids of the classes in ~/mask, with commas.",
    ),
    DeclareLaunchArgument(
        "start",
        default_value="true",
        choices=["true", "false"],
        description="Start elevation_mapping_cupy.",
    ),
]


def generate_launch_description() -> LaunchDescription:
    """Describe the launch."""
    node = str(Path(__file__).with_name("panoptic.launch.py"))
    core = [FindPackageShare("elevation_mapping_cupy"), "/config/core/core_param.yaml"]
    mapping = Node(
        package="elevation_mapping_cupy",
        executable="elevation_mapping_node",
        name="elevation_mapping_node",
        parameters=[core, str(CONFIG)],
        condition=IfCondition(LaunchConfiguration("start")),
    )
    return LaunchDescription(
        [*ARGUMENTS, IncludeLaunchDescription(PythonLaunchDescriptionSource(node)), mapping]
    )
