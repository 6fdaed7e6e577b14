"""What tests of builds and installations share."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE_FILES = ("CMakeLists.txt", "package.xml", "pyproject.toml", "setup.py")
SOURCE_FOLDERS = ("cmake", "config", "launch", "models", "msg", "panoptic_ros", "scripts")
MESSAGES = sorted(path.stem for path in (ROOT / "msg").glob("*.msg"))
LIMIT = 280  # seconds for one command on a busy machine


def find_program(name: str) -> str | None:
    """Find a program, first beside this interpreter."""
    beside = str(Path(sys.executable).parent)
    return shutil.which(name, path=os.pathsep.join([beside, os.environ["PATH"]]))


def missing_tools() -> str:
    """Name what a build of the messages lacks here."""
    programs = [name for name in ("cmake", "colcon", "c++") if not find_program(name)]
    modules = [name for name in ("ament_package",) if not importlib.util.find_spec(name)]
    return ", ".join(programs + modules)


def prepended(environment: dict[str, str] | os._Environ, **entries: str) -> dict[str, str]:
    """Return an environment with entries put in front of lists of paths."""
    lists = {
        name: os.pathsep.join(filter(None, [entry, environment.get(name)]))
        for name, entry in entries.items()
    }
    return {**environment, **lists}


def run(*command: str | Path, **options) -> str:
    """Run a command and return its output; a failure shows it all."""
    result = subprocess.run(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
        **options,
    )
    assert result.returncode == 0, f"{command} failed:\n{result.stdout}"
    return result.stdout


def site_packages(prefix: Path) -> Path:
    """Return the folder of Python packages below a prefix."""
    return prefix / os.path.relpath(sysconfig.get_path("purelib"), sysconfig.get_path("data"))


def copy_sources(copy: Path) -> Path:
    """Copy what a build may read: nothing else can slip in, nothing is left in the repository."""
    for name in SOURCE_FILES:
        shutil.copy(ROOT / name, copy / name)
    for name in SOURCE_FOLDERS:
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, copy / name, ignore=ignore)
    return copy


def files(folder: Path) -> set[Path]:
    """List the files below a folder."""
    found = {p.relative_to(folder) for p in folder.rglob("*") if p.is_file()}
    return {p for p in found if "__pycache__" not in p.parts}


def published(folder: Path) -> set[Path]:
    """List what of a folder is packed: models without the forms that this machine made."""
    return {path for path in files(folder) if "int8" not in path.parts}
