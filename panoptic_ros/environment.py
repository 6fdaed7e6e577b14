"""Environment variables of processes that pass large images to each other."""

from __future__ import annotations

import os

from panoptic_ros.resources import share_directory

FAST_DDS_2_DISTRIBUTIONS = ("humble", "jazzy")


def profile_variable() -> str:
    """Return the variable from which the Fast DDS of the sourced distribution takes its profile.

    Version 2 reads the one name, version 3 the other and warns of the first.
    """
    if os.environ.get("ROS_DISTRO") in FAST_DDS_2_DISTRIBUTIONS:
        return "FASTRTPS_DEFAULT_PROFILES_FILE"
    return "FASTDDS_DEFAULT_PROFILES_FILE"


def large_image_environment() -> dict[str, str]:
    """Return the variables with which a process sends and receives large images fast.

    Fast DDS gets a shared-memory segment that holds them. glibc keeps freed memory instead of
    returning it to the system after every image, and to that end serves all threads from one
    arena: those of other threads than the main one cannot hold blocks above 64 MB.

    The variables take effect when a process starts.
    """
    return {
        profile_variable(): str(share_directory() / "config" / "fastdds_large_images.xml"),
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str((1 << 31) - 1),
    }
