"""Start the node and Hydra, which builds a scene graph from colour, depth and ~/semantic.

    panoptic classes fpsnet_small --format hydra > labels.yaml
    ros2 launch panoptic_ros hydra.launch.py labels:=labels.yaml

Hydra has to be installed; start:=false starts the node alone. The arguments of
panoptic.launch.py, and of Hydra's own launch file, work here too.
"""

from __future__ import annotations

from pathlib import Path

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    GroupAction,
    IncludeLaunchDescription,
    OpaqueFunction,
)
from launch.launch_description_sources import (
    AnyLaunchDescriptionSource,
    PythonLaunchDescriptionSource,
)
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import SetRemap
from launch_ros.substitutions import FindPackageShare

from panoptic_ros.ros.launching import output_topic
from panoptic_ros.system import share_directory

INPUT = share_directory() / "config" / "consumers" / "hydra_input.yaml"

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
        default_value="/camera/aligned_depth_to_color/image_raw",
        description="Topic of depth images registered to them, for Hydra.",
    ),
    DeclareLaunchArgument(
        "labels",
        default_value="labels.yaml",
        description="Label space of the model, from panoptic classes.",
    ),
    DeclareLaunchArgument(
        "dataset",
        default_value="uhumans2",
        description="Name of Hydra's configuration of everything but the input.",
    ),
    DeclareLaunchArgument(
        "start", default_value="true", choices=["true", "false"], description="Start Hydra."
    ),
]


def start_hydra(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Include Hydra's launch file, connected to the camera and to the node."""
    if LaunchConfiguration("start").perform(context) == "false":
        return []
    color, depth = LaunchConfiguration("image"), LaunchConfiguration("depth_image")
    info = LaunchConfiguration("camera_info")
    semantic = output_topic(context.launch_configurations, "semantic")
    topics = {
        "input/camera/rgb/image_raw": color,
        "input/camera/rgb/camera_info": info,
        "input/camera/depth_registered/image_rect": depth,
        "input/camera/semantic/image_raw": semantic,
        # Newer versions:
        "camera/color/image_raw": color,
        "camera/color/camera_info": info,
        "camera/depth/image_rect": depth,
        "camera/semantic/image_raw": semantic,
    }
    hydra = IncludeLaunchDescription(
        AnyLaunchDescriptionSource([FindPackageShare("hydra_ros"), "/launch/hydra.launch.yaml"]),
        launch_arguments={
            "dataset": LaunchConfiguration("dataset"),
            "labelspace": "",
            "labelspace_path": LaunchConfiguration("labels"),
            "input_config_path": str(INPUT),
        }.items(),
    )
    return [GroupAction([*(SetRemap(f"hydra/{name}", to) for name, to in topics.items()), hydra])]


def generate_launch_description() -> LaunchDescription:
    """Describe the launch."""
    node = str(Path(__file__).with_name("panoptic.launch.py"))
    return LaunchDescription(
        [
            *ARGUMENTS,
            IncludeLaunchDescription(PythonLaunchDescriptionSource(node)),
            OpaqueFunction(function=start_hydra),
        ]
    )
