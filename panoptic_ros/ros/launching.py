"""What the launch files share, without ROS: how other nodes follow the arguments of ours."""

from __future__ import annotations

from collections.abc import Mapping


def output_topic(arguments: Mapping[str, str], name: str) -> str:
    """Return the absolute name of an output, ``mask`` say, of the node in its namespace.

    Args:
        arguments: Of panoptic.launch.py; ``namespace`` may be empty, with or without slashes.
        name: Below the node's name.
    """
    return "/" + "/".join(filter(None, [arguments["namespace"].strip("/"), "panoptic", name]))


def sim_time(arguments: Mapping[str, str]) -> dict[str, bool]:
    """Return ``use_sim_time`` as a parameter for another node; none if it was not given."""
    given = arguments["use_sim_time"]
    return {"use_sim_time": given == "true"} if given else {}
