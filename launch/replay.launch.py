"""Play a bag through the node and show the result in RViz.

    ros2 launch panoptic_ros replay.launch.py bag:=FOLDER image:=/camera/image_raw

The bag starts when the model is loaded. The arguments of panoptic.launch.py work here too.
"""

from __future__ import annotations

from pathlib import Path

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.event_handlers import OnStateTransition

from panoptic_ros.system import large_image_environment

SWITCH = ["true", "false"]

ARGUMENTS = [
    DeclareLaunchArgument("bag", description="Bag to play."),
    DeclareLaunchArgument("image", description="Topic of the camera images in the bag."),
    DeclareLaunchArgument("rate", default_value="1.0", description="Times the recorded speed."),
    DeclareLaunchArgument(
        "loop", default_value="false", choices=SWITCH, description="Play it again and again."
    ),
    # Other defaults than in panoptic.launch.py.
    DeclareLaunchArgument(
        "rviz", default_value="true", choices=SWITCH, description="Show camera and overlay."
    ),
    DeclareLaunchArgument(
        "use_sim_time",
        default_value="true",
        choices=SWITCH,
        description="Take the time from /clock, that is from the bag.",
    ),
]


def play(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Play the bag."""
    bag, rate, loop = (
        LaunchConfiguration(name).perform(context) for name in ("bag", "rate", "loop")
    )
    command = ["ros2", "bag", "play", bag, "--clock", "--rate", rate]
    # The player owns the shared memory of the images; the node's environment ends with its group.
    large = context.launch_configurations["large_images"] == "true"
    missing = {k: v for k, v in large_image_environment().items() if k not in context.environment}
    return [
        ExecuteProcess(
            cmd=command + ["--loop"] * (loop == "true"),
            additional_env=missing if large else {},
            output="screen",
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Describe the launch."""
    node = str(Path(__file__).with_name("panoptic.launch.py"))
    return LaunchDescription(
        [
            *ARGUMENTS,
            RegisterEventHandler(
                OnStateTransition(
                    goal_state="active",
                    entities=[OpaqueFunction(function=play)],
                    handle_once=True,
                )
            ),
            IncludeLaunchDescription(PythonLaunchDescriptionSource(node)),
        ]
    )
