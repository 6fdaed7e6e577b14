"""Where the files that are not code live: models, configurations, launch files."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def share_directory() -> Path:
    """Return the folder that holds ``models``, ``config`` and ``launch``.

    That is the repository when the code runs from it (also through symbolic links), and
    ``PREFIX/share/panoptic_ros`` when it was installed by colcon or pip.

    Raises:
        FileNotFoundError: Neither is there; the installation is not whole.
    """
    package = Path(__file__).resolve().parent
    if (package.parent / "package.xml").is_file():
        return package.parent
    candidates = [p / "share" / "panoptic_ros" for p in Path(__file__).absolute().parents]
    for folder in candidates:
        if (folder / "config").is_dir():
            return folder
    raise FileNotFoundError(
        f"found no share/panoptic_ros with config/ above {package}; install the package again"
    )
