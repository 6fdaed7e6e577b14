"""What is published: an sdist, and the wheel that is built from it without ROS or a compiler."""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from panoptic_ros.data.synthetic import drive
from panoptic_ros.segmenter import Segmenter
from test.building import (
    ROOT,
    SOURCE_FILES,
    SOURCE_FOLDERS,
    copy_sources,
    files,
    prepended,
    published,
    run,
    site_packages,
)

pytestmark = pytest.mark.timeout(900)  # a busy machine


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    """What the builds of this file read."""
    return copy_sources(tmp_path_factory.mktemp("panoptic_ros"))


@pytest.fixture(scope="module")
def sdist(sources, tmp_path_factory) -> Path:
    """Pack what is published."""
    source = tmp_path_factory.mktemp("sdist") / "source"
    shutil.copytree(sources, source, ignore=shutil.ignore_patterns("int8"))
    for name in ("MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    run(sys.executable, "setup.py", "-q", "sdist", cwd=source)
    (archive,) = (source / "dist").glob("*.tar.gz")
    return archive


def test_pip_without_ros(sdist, sources, tmp_path):
    """Without a compiler the half that needs no ROS is built, and the build says so."""
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    output = run(
        *(*pip, "--verbose", "wheel", "--no-deps", "--no-build-isolation"),
        *("--wheel-dir", tmp_path, sdist),
        env={**os.environ, "PATH": "/nowhere"},
    )
    assert "WITHOUT the ROS 2 node and messages (" in output
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    prefix = tmp_path / "prefix"
    run(*pip, "install", "--no-deps", "--ignore-installed", "--prefix", prefix, wheel)
    package, share = site_packages(prefix) / "panoptic_ros", prefix / "share" / "panoptic_ros"
    assert not list(package.rglob("*.so"))
    for folder in ("config", "models", "msg"):
        assert files(share / folder) == published(sources / folder)
    environment = prepended(os.environ, PYTHONPATH=str(site_packages(prefix)))
    code = "import panoptic_ros.system as s; print(s.__file__, s.share_directory())"
    where = run(sys.executable, "-c", code, env=environment, cwd=tmp_path).split()
    assert where == [str(package / "system.py"), str(share)]
    check_segment(prefix / "bin" / "panoptic", tmp_path, environment)


def check_segment(program: Path, folder: Path, environment: dict[str, str]) -> None:
    """Segment a picture with an installed program as the sources do."""
    [image] = [image for image, _, _ in drive(1, (96, 128), 1)]
    cv2.imwrite(str(folder / "street.png"), image[..., ::-1])
    where = {"device": "cpu", "precision": "fp32", "resolution": "96x128", "engine": "eager"}
    options = [word for name, value in where.items() for word in (f"--{name}", value)]
    words = (program, "segment", "street.png", "--output", "out", *options)
    run(*words, env=environment, cwd=folder)
    labels = cv2.imread(str(folder / "out" / "labels" / "street.png"), cv2.IMREAD_UNCHANGED)
    expected = Segmenter.load("fpsnet_small", **where)(image).labels
    assert len(np.unique(expected)) > 2
    np.testing.assert_array_equal(labels, expected)


def test_an_sdist_holds_what_a_wheel_is_built_from(sdist, sources):
    with tarfile.open(sdist) as tar:
        packed = {name.partition("/")[2] for name in tar.getnames()}
    wanted = {f"{name}/{path}" for name in SOURCE_FOLDERS for path in published(sources / name)}
    assert wanted | set(SOURCE_FILES) <= packed
    assert not any(name.startswith("test/") for name in packed)
