"""Reference data that is not part of the repository: tests that need it skip without it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("PANOPTIC_SHARED_DIR", REPOSITORY.parent / "shared"))


def shared_path(relative: str) -> Path:
    """Return a path below the shared data, or skip the test that asks for it."""
    path = SHARED / relative
    if not path.exists():
        pytest.skip(f"{path} is not here; PANOPTIC_SHARED_DIR names the folder that has it")
    return path
