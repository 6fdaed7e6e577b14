"""The documentation speaks of what there is: links, commands, options, targets, arguments."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest
import typer

from panoptic_ros.cli import app
from test.shared_data import REPOSITORY

PAGES = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")),
    *(REPOSITORY / name for name in ("QUALITY_DECLARATION.md", "SECURITY.md")),
    *sorted((REPOSITORY / "docs").glob("*.md")),
]
COMMANDS = typer.main.get_command(app)


def named(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def code(page: Path) -> list[str]:
    """The lines of code blocks, continued ones joined, and what stands between backticks."""
    text = page.read_text(encoding="utf-8")
    fence = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    blocks = [block for language, block in fence.findall(text) if language in ("", "sh")]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return lines + re.findall(r"`([^`\n]+)`", fence.sub("", text))


def test_code_after_a_block_in_another_language_is_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 1\n```\n\ntext `in line`\n\n```sh\nmake \\\n  docs\n```\n")
    assert [" ".join(line.split()) for line in code(page)] == ["make docs", "in line"]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        assert file.exists(), f"{named(page)} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings]
            assert anchor in slugs, f"{named(page)} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_exist(page):
    for line in code(page):
        match = re.search(r"(?:^|[\s;])panoptic ([a-z]+)( .*)?$", line.split("#")[0])
        if not match or (match[1] in ("evaluate", "segment") and not match[2]):
            continue
        assert match[1] in COMMANDS.commands, f"{named(page)}: {line}"
        options = {
            name
            for parameter in COMMANDS.commands[match[1]].params
            for name in (*parameter.opts, *parameter.secondary_opts)
        } | {"--help"}
        words = shlex.split((match[2] or "").replace("[", " ").replace("]", " "))
        assert {w for w in words if w.startswith("--")} <= options, f"{named(page)}: {line}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_make_targets_and_modules_exist(page):
    targets = re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    for line in code(page):
        if match := re.match(r"make ([a-z]+)", line):
            assert match[1] in targets, f"{named(page)}: {line}"
        if match := re.search(r"python3? -m (benchmarks|panoptic_ros)\.([\w.]+)", line):
            file = REPOSITORY / match[1] / f"{match[2].replace('.', '/')}.py"
            assert file.is_file(), f"{named(page)}: {line}"


def declared_arguments(launch_file: Path) -> set[str]:
    """The names given to DeclareLaunchArgument in a launch file."""
    calls = [n for n in ast.walk(ast.parse(launch_file.read_text())) if isinstance(n, ast.Call)]
    return {
        call.args[0].value
        for call in calls
        if getattr(call.func, "id", "") == "DeclareLaunchArgument"
        and isinstance(call.args[0], ast.Constant)
    }


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_launch_files_and_arguments_exist(page):
    for line in code(page):
        if match := re.search(r"ros2 launch panoptic_ros (\S+)(.*)", line.split("#")[0]):
            file = REPOSITORY / "launch" / match[1]
            assert file.is_file(), f"{named(page)}: {line}"
            known = declared_arguments(file) | declared_arguments(
                REPOSITORY / "launch/panoptic.launch.py"
            )
            given = {word.split(":=")[0] for word in match[2].split() if ":=" in word}
            assert given <= known, f"{named(page)}: {line}"


def test_the_readme_is_short():
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 150
