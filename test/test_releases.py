"""What describes the package to others is true: dependencies, images, workflows, metadata."""

from __future__ import annotations

import ast
import re
import runpy
import sys
import xml.etree.ElementTree as ElementTree
from unittest import mock

import pytest
import yaml

import panoptic_ros
from test.shared_data import REPOSITORY

ROSDEP_KEYS = {  # of what ROS does not name as it is imported
    "cv2": "python3-opencv",
    "numpy": "python3-numpy",
    "scipy": "python3-scipy",
    "tqdm": "python3-tqdm",
    "typer": "python3-typer",
    "yaml": "python3-yaml",
}
OPTIONAL = {"vision_msgs", "simplejpeg", "triton", "lz4"}  # used where they are installed
WORKFLOWS = sorted((REPOSITORY / ".github/workflows").glob("*.yml"))


def imported(folder: str) -> set[str]:
    """Top-level modules that the code of a folder imports, but the standard library's and ours."""
    names = set()
    for path in (REPOSITORY / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(node.module.split(".")[0])
    return names - sys.stdlib_module_names - {"panoptic_ros"}


def requirement_names(lines) -> set[str]:
    return {re.split(r"[\s\[<>=;#-]", line)[0] for line in lines} - {""}


def setup_arguments() -> dict:
    with mock.patch("setuptools.setup") as setup:
        runpy.run_path(str(REPOSITORY / "setup.py"))
    return setup.call_args.kwargs


def test_package_xml_declares_what_is_imported():
    root = ElementTree.parse(REPOSITORY / "package.xml").getroot()
    declared = {tag.text for tag in root if tag.tag.endswith("depend")}
    robot = (REPOSITORY / "requirements/robot.txt").read_text().splitlines()
    extras = setup_arguments()["extras_require"].values()
    pip = requirement_names(robot) | requirement_names(line for e in extras for line in e)
    modules = imported("panoptic_ros") | imported("launch")
    assert {"rclpy", "torch", "cv2"} < modules
    undeclared = {m for m in modules - OPTIONAL if ROSDEP_KEYS.get(m, m) not in declared | pip}
    assert undeclared == set()
    assert {ROSDEP_KEYS[m] for m in modules if m in ROSDEP_KEYS} <= declared


def test_package_xml_has_what_bloom_asks_for():
    root = ElementTree.parse(REPOSITORY / "package.xml").getroot()
    assert root.get("format") == "3"
    assert re.fullmatch(r"[a-z][a-z0-9_]+", root.findtext("name"))
    assert re.fullmatch(r"\d+\.\d+\.\d+", root.findtext("version"))
    assert re.fullmatch(r"\S+@\S+\.\S+", root.find("maintainer").get("email"))
    assert (REPOSITORY / root.find("license").get("file")).is_file()
    assert "Forthcoming\n-----------\n" in (REPOSITORY / "CHANGELOG.rst").read_text()


def robot_steps() -> list[str]:
    """Commands of the README that install on a robot, without the last, which starts the node."""
    section = (REPOSITORY / "README.md").read_text().partition("## On a robot")[2]
    *steps, start = re.search(r"```sh\n(.*?)```", section, re.DOTALL)[1].splitlines()
    assert start.startswith("ros2 launch ")
    return steps


def contains(lines: list[str], steps: list[str]) -> bool:
    return any(lines[i : i + len(steps)] == steps for i in range(len(lines)))


def test_the_image_is_built_with_the_steps_of_the_readme():
    text = (REPOSITORY / "docker/Dockerfile").read_text()
    run = re.search(r"^RUN <<STEPS\n(.*?)^STEPS$", text, re.DOTALL | re.MULTILINE)[1].splitlines()
    assert contains(run, robot_steps())
    start = re.search(r"^CMD (\[.*\])$", text, re.MULTILINE)[1]
    section = (REPOSITORY / "README.md").read_text().partition("## On a robot")[2]
    assert " ".join(ast.literal_eval(start)) in section


def test_the_workflow_builds_each_distribution_with_the_steps_of_the_readme():
    jobs = yaml.safe_load((REPOSITORY / ".github/workflows/test.yml").read_text())["jobs"]
    job = jobs["distribution"]
    distributions = {entry["ros"] for entry in job["strategy"]["matrix"]["include"]}
    assert distributions == {"humble", "jazzy", "kilted"}
    lines = job["steps"][-1]["run"].splitlines()
    *steps, build = robot_steps()
    assert contains([line.partition(" hypothesis ")[0] for line in lines], steps)
    assert build.partition(" && ")[0] in lines


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_run_what_there_is(path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow[True]  # YAML 1.1 reads the key "on" so
    targets = re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert workflow["jobs"]
    for job in workflow["jobs"].values():
        assert job["runs-on"] and job["timeout-minutes"]
        matrix = job.get("strategy", {}).get("matrix", {})
        text = "\n".join(step.get("run", "") for step in job["steps"])
        made = re.findall(r"\bmake ([a-z]+)", text) + [
            c.split()[0] for c in matrix.get("command", [])
        ]
        assert set(made) <= set(targets)
        for file in re.findall(r"(?:src/panoptic_ros/)?((?:requirements|test)/[\w/.]+)", text):
            assert (REPOSITORY / file).exists(), file
        assert all("uses" in step or step.get("run") for step in job["steps"])


@pytest.mark.parametrize("name", ["bug", "feature"])
def test_issue_templates_are_forms(name):
    form = yaml.safe_load((REPOSITORY / f".github/ISSUE_TEMPLATE/{name}.yml").read_text())
    assert {"name", "description", "body"} <= form.keys()
    for field in form["body"]:
        assert field["type"] in {"textarea", "input", "dropdown", "checkboxes", "markdown"}
        assert field["attributes"]["label"]
    assert any(field.get("validations", {}).get("required") for field in form["body"])


def test_citation_is_of_this_version():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert citation["version"] == panoptic_ros.__version__
    required = {"cff-version", "message", "title", "authors"}  # of the format, version 1.2.0
    assert required <= citation.keys()
    arguments = setup_arguments()
    assert (citation["title"], citation["license"]) == (arguments["name"], arguments["license"])
    cited = {reference["identifiers"][0]["value"] for reference in citation["references"]}
    papers = re.findall(r"arxiv\.org/abs/([\d.]+)", (REPOSITORY / "README.md").read_text())
    assert cited == {f"arXiv:{paper}" for paper in papers}
