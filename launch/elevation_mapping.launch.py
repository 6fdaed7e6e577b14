"""Start the node and elevation_mapping_cupy, whose map gets a layer from ~/mask.

    ros2 launch panoptic_ros elevation_mapping.launch.py mask_classes:=road,sidewalk

elevation_mapping_cupy has to be installed; start:=false starts the node alone. The arguments of
panoptic.launch.py work here too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from panoptic_ros.ros.launching import output_topic, sim_time
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
        description="Topic of the camera_info of both.",
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


def topics(given: Mapping[str, str]) -> dict[str, str]:
    """Return the topics in CONFIG as parameters, for another namespace and camera_info."""
    mask, info = output_topic(given, "mask"), given["camera_info"]
    named = {
        "panoptic_mask.topic_name": mask,
        "panoptic_mask.topic_name_camera": mask,
        "panoptic_mask.camera_info_topic_name": info,
        "panoptic_mask.topic_name_camera_info": info,
        "panoptic_points.topic_name": output_topic(given, "points"),
    }
    return {f"subscribers.{name}": topic for name, topic in named.items()}


def start_mapping(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Start elevation_mapping_cupy, connected to the camera and to the node."""
    core = [FindPackageShare("elevation_mapping_cupy"), "/config/core/core_param.yaml"]
    given = context.launch_configurations
    return [
        Node(
            package="elevation_mapping_cupy",
            executable="elevation_mapping_node",
            name="elevation_mapping_node",
            parameters=[core, str(CONFIG), {**topics(given), **sim_time(given)}],
            condition=IfCondition(LaunchConfiguration("start")),
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Describe the launch."""
    node = str(Path(__file__).with_name("panoptic.launch.py"))
    return LaunchDescription(
        [
            *ARGUMENTS,
            IncludeLaunchDescription(PythonLaunchDescriptionSource(node)),
            OpaqueFunction(function=start_mapping),
        ]
    )
