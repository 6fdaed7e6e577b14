"""Start the node, on one camera, with the settings that large images need.

    ros2 launch panoptic_ros panoptic.launch.py model:=NAME image:=/camera/image_raw

An argument that is not given leaves its parameter to params_file.
"""

from __future__ import annotations

from typing import List  # noqa: UP035  (launch_ros knows no other list of texts)

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    GroupAction,
    LogInfo,
    OpaqueFunction,
    SetEnvironmentVariable,
)
from launch.conditions import IfCondition
from launch.substitutions import EnvironmentVariable, LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
from launch_ros.parameter_descriptions import ParameterValue

from panoptic_ros.engines import ENGINES
from panoptic_ros.system import large_image_environment, profile_variable, share_directory

CONFIG = share_directory() / "config"
SWITCH = ["true", "false"]

# Arguments of the same name as the parameter that they set, and its type.
PARAMETERS = {
    "model": str,
    "resolution": str,
    "device": str,
    "precision": str,
    "engine": str,
    "image_transport": str,
    "tracking": bool,
    "autostart": bool,
    "use_sim_time": bool,
}

ARGUMENTS = [
    DeclareLaunchArgument(
        "model", default_value="", description="Name of a model, or path of a model folder."
    ),
    DeclareLaunchArgument(
        "resolution",
        default_value="",
        description="HEIGHTxWIDTH that the network sees, for example 512x1024.",
    ),
    DeclareLaunchArgument("device", default_value="", description="auto, cpu, cuda or cuda:N."),
    DeclareLaunchArgument(
        "precision",
        default_value="",
        choices=["", "auto", "fp32", "fp16", "bf16", "int8"],
        description="Number format of the network.",
    ),
    DeclareLaunchArgument(
        "engine",
        default_value="",
        choices=["", "auto", *ENGINES],
        description="What computes the network.",
    ),
    DeclareLaunchArgument(
        "image",
        default_value="image",
        description="Topic of the camera images; with cameras one each, with commas.",
    ),
    DeclareLaunchArgument(
        "depth",
        default_value="",
        description="Topic of depth images registered to them; with cameras one each, with "
        "commas. Empty: no depth.",
    ),
    DeclareLaunchArgument(
        "camera_info",
        default_value="camera_info",
        description="Topic of the camera_info that goes with depth; with cameras one each.",
    ),
    DeclareLaunchArgument(
        "mask_classes",
        default_value="",
        description="Names or ids of the classes in ~/mask, with commas. Empty: no ~/mask.",
    ),
    DeclareLaunchArgument(
        "cameras",
        default_value="",
        description="Names of several cameras, with commas; NAME/image unless image names topics.",
    ),
    DeclareLaunchArgument(
        "image_transport",
        default_value="",
        choices=["", "raw", "compressed"],
        description="compressed subscribes to IMAGE/compressed.",
    ),
    DeclareLaunchArgument(
        "tracking",
        default_value="",
        choices=["", *SWITCH],
        description="Give a thing the same track_id in every image.",
    ),
    DeclareLaunchArgument(
        "params_file",
        default_value=str(CONFIG / "panoptic.yaml"),
        description="Parameters of the node.",
    ),
    DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node."),
    DeclareLaunchArgument(
        "autostart",
        default_value="",
        choices=["", *SWITCH],
        description="Configure and activate without being told to.",
    ),
    DeclareLaunchArgument(
        "use_sim_time",
        default_value="",
        choices=["", *SWITCH],
        description="Take the time from /clock.",
    ),
    DeclareLaunchArgument(
        "large_images",
        default_value="true",
        choices=SWITCH,
        description="Shared memory of Fast DDS and malloc for large images; what the "
        "environment already sets stays.",
    ),
    DeclareLaunchArgument(
        "rviz", default_value="false", choices=SWITCH, description="Show camera and overlay."
    ),
]


def set_environment() -> list[LaunchDescriptionEntity]:
    """Set what large images need, and say what the camera driver needs."""
    condition = IfCondition(LaunchConfiguration("large_images"))
    variable = profile_variable()
    profile = EnvironmentVariable(variable, default_value="")
    return [
        *(
            SetEnvironmentVariable(
                name, EnvironmentVariable(name, default_value=value), condition=condition
            )
            for name, value in large_image_environment().items()
        ),
        LogInfo(
            msg=["start the camera driver with the same ", variable, "=", profile],
            condition=condition,
        ),
    ]


def split(text: str) -> list[str]:
    """Return the parts of a list with commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def remappings(cameras: list[str], input_: str, given: str) -> list[tuple[str, str]]:
    """Return which topic an input (``image``, ...) of each camera comes from.

    Raises:
        ValueError: There is neither one topic for each camera nor none.
    """
    if not cameras:
        return [(input_, given)]
    topics = split(given)
    if topics == [input_]:
        return []
    if len(topics) != len(cameras):
        raise ValueError(
            f"{input_} names {len(topics)} topics for {len(cameras)} cameras; give one each, "
            f"with commas, or none for NAME/{input_}"
        )
    return [(f"{camera}/{input_}", topic) for camera, topic in zip(cameras, topics, strict=True)]


def start_node(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Start the node with the parameters that were given."""
    given = {name: LaunchConfiguration(name) for name in PARAMETERS}
    cameras = split(LaunchConfiguration("cameras").perform(context))
    classes = split(LaunchConfiguration("mask_classes").perform(context))
    # An id must not become a number on the way.
    texts = ParameterValue(classes, value_type=List[str])  # noqa: UP006
    mask = {"mask_classes": texts} if classes else {}
    topics = {
        name: LaunchConfiguration(name).perform(context)
        for name in ("image", "depth", "camera_info")
    }
    inputs = topics if topics["depth"] else {"image": topics["image"]}
    return [
        LifecycleNode(
            package="panoptic_ros",
            executable="panoptic_node",
            name="panoptic",
            namespace=LaunchConfiguration("namespace"),
            parameters=[
                LaunchConfiguration("params_file"),
                {
                    name: ParameterValue(value, value_type=PARAMETERS[name])
                    for name, value in given.items()
                    if value.perform(context)
                },
                {"cameras": cameras} if cameras else {},
                mask,
                {"depth": True} if topics["depth"] else {},
            ],
            remappings=[
                pair for name, topic in inputs.items() for pair in remappings(cameras, name, topic)
            ],
            output="screen",
            emulate_tty=True,
            sigterm_timeout="15",  # seconds after Ctrl-C; a batch in progress is waited for
        )
    ]


def start_rviz(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Start RViz on the first camera; the layout's names move to the namespace of the node."""
    if LaunchConfiguration("rviz").perform(context) == "false":
        return []
    cameras = split(LaunchConfiguration("cameras").perform(context))
    given = remappings(cameras, "image", LaunchConfiguration("image").perform(context))
    image = given[0][1] if given else f"{cameras[0]}/image"
    outputs = f"panoptic/{cameras[0]}" if cameras else "panoptic"
    use_sim_time = LaunchConfiguration("use_sim_time")
    as_switch = ParameterValue(use_sim_time, value_type=bool)
    return [
        Node(
            package="rviz2",
            executable="rviz2",
            namespace=LaunchConfiguration("namespace"),
            arguments=["-d", str(CONFIG / "panoptic.rviz")],
            parameters=[{"use_sim_time": as_switch}] if use_sim_time.perform(context) else [],
            remappings=[
                ("/image", image),
                ("/panoptic/overlay", f"{outputs}/overlay"),
                ("/panoptic/labels", f"{outputs}/labels"),
            ],
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Describe the launch."""
    started = [OpaqueFunction(function=start) for start in (start_node, start_rviz)]
    return LaunchDescription([*ARGUMENTS, GroupAction([*set_environment(), *started])])
