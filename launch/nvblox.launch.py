"""Start the node and nvblox, which takes people out of its map of what stands still.

    ros2 launch panoptic_ros nvblox.launch.py mask_classes:=person,bicyclist

nvblox has to be installed; start:=false starts the node alone. The arguments of
panoptic.launch.py work here too.
"""

from __future__ import annotations

from pathlib import Path

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from panoptic_ros.ros.launching import output_topic, sim_time
from panoptic_ros.system import share_directory

CONFIG = share_directory() / "config" / "consumers" / "nvblox.yaml"

ARGUMENTS = [
    DeclareLaunchArgument(
        "image",
        default_value="/camera/color/image_raw",
        description="Topic of the camera images.",
    ),
    DeclareLaunchArgument(
        "camera_info",
        default_value="/camera/color/camera_info",
        description="Topic of their camera_info.",
    ),
    DeclareLaunchArgument(
        "depth_image",
        default_value="/camera/depth/image_rect_raw",
        description="Topic of the depth images that nvblox maps; they need not be registered.",
    ),
    DeclareLaunchArgument(
        "depth_info",
        default_value="/camera/depth/camera_info",
        description="Topic of their camera_info.",
    ),
    DeclareLaunchArgument(
        "mask_classes",
        default_value="person",
        description="Names or ids of the classes in ~/mask, with commas.",
    ),
    DeclareLaunchArgument(
        "start", default_value="true", choices=["true", "false"], description="Start nvblox."
    ),
]


def start_nvblox(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Start nvblox, connected to the camera and to the node."""
    info = LaunchConfiguration("camera_info")
    given = context.launch_configurations
    return [
        Node(
            package="nvblox_ros",
            executable="nvblox_node",
            name="nvblox_node",
            parameters=[str(CONFIG), sim_time(given)],
            remappings=[
                ("camera_0/color/image", LaunchConfiguration("image")),
                ("camera_0/color/camera_info", info),
                ("camera_0/depth/image", LaunchConfiguration("depth_image")),
                ("camera_0/depth/camera_info", LaunchConfiguration("depth_info")),
                ("camera_0/mask/image", output_topic(given, "mask")),
                ("camera_0/mask/camera_info", info),  # the mask is of the size of the image
            ],
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
            OpaqueFunction(function=start_nvblox),
        ]
    )
