"""The commands of the package as processes, killed with -9 while they work.

Half of the kills come at a random moment after the imports, half at a random step on the disk.
What then stands in the output is what a run that nobody disturbs writes, or is not there.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision
import yaml

from campaigns.data_targets import annotations
from campaigns.model_targets import TINY

KILLED_AT_STEP = """
import sys
from pathlib import Path
from campaigns.kills import die_at
from panoptic_ros.cli import main
taken = die_at(int(sys.argv[1]), Path(sys.argv[2]))
try:
    main(sys.argv[3:])
finally:
    print("\\nsteps:", taken(), flush=True)
"""


@dataclass(frozen=True)
class Command:
    """A command that is to be killed.

    Attributes:
        name: In the report.
        arguments: Of ``panoptic``.
        output: File or folder that it writes.
        check: Raises if what is in the output is neither whole nor absent.
    """

    name: str
    arguments: Sequence[str]
    output: Path
    check: Callable[[], None]


def commands(folder: Path) -> list[Command]:
    """Make a model, images with truth and a checkpoint in a folder, and the commands for them."""
    from panoptic_ros.model_zoo import parse_config, save_model

    model = folder / "tiny"
    config = parse_config(TINY)
    save_model(model, config, config.build())
    truth, images = _data(folder), folder / "images"
    configuration, checkpoint = folder / "whole.yaml", folder / "resnet18.pth"
    network = {**TINY["network"], "backbone": "resnet18"}
    configuration.write_text(yaml.safe_dump({**TINY, "network": network}))
    torch.save(torchvision.models.resnet18().state_dict(), checkpoint)
    outputs = {name: folder / name for name in ("evaluation", "export", "engines", "imported")}
    os.environ["PANOPTIC_ROS_CACHE_DIR"] = str(outputs["engines"])
    given = {
        "evaluation": [
            *("evaluate", "--model", model, "--annotations", truth, "--images", images),
            *("--engine", "eager", "--json", outputs["evaluation"] / "metrics.json"),
            *("--pictures", outputs["evaluation"] / "pictures"),
        ],
        "export": [
            *("export", "--model", model, "--format", "onnx"),
            *("--output", outputs["export"] / "tiny.onnx"),
        ],
        "engines": [
            *("segment", images, "--model", model, "--output", folder / "segmented"),
            *("--engine", "openvino"),
        ],
        "imported": [
            *("import", checkpoint, "--format", "torchvision"),
            *("--configuration", configuration, "--output", outputs["imported"]),
        ],
    }
    checks = {"engines": check_engines, "imported": check_model}
    return [
        Command(
            name,
            [str(argument) for argument in arguments],
            outputs[name],
            checks.get(name, SameFiles)(outputs[name]),
        )
        for name, arguments in given.items()
    ]


def _data(folder: Path, number: int = 40) -> Path:
    target = annotations(folder)
    truth = json.loads(target.examples[0])
    (image,), (annotation,) = truth["images"], truth["annotations"]
    truth["images"] = [{**image, "id": i} for i in range(number)]
    truth["annotations"] = [{**annotation, "image_id": i} for i in range(number)]
    file = folder / "truth.json"
    file.write_text(json.dumps(truth))
    return file


class SameFiles:
    """Checks that each file of a folder is that of the first time, when all was whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._whole: dict[Path, object] = {}

    def __call__(self) -> None:
        paths = [path.relative_to(self._folder) for path in self._folder.rglob("*.*")]
        names = [path for path in paths if not any(p.startswith(".") for p in path.parts)]
        found = {name: _content(self._folder / name) for name in names}
        self._whole = self._whole or found
        assert self._whole, f"nothing in {self._folder}"
        for name, content in found.items():
            assert content == self._whole[name], f"{name} is not whole"


def _content(path: Path) -> object:
    if path.suffix != ".json":
        return path.read_bytes()
    fields = json.loads(path.read_text())
    return {k: v for k, v in fields.items() if k not in ("seconds", "wall_seconds")}


def check_engines(folder: Path) -> Callable[[], None]:
    """Return a check that every cached engine is whole."""

    def check() -> None:
        from panoptic_ros.engines import cache

        for path in folder.glob("*.engine"):
            assert cache._read(path.stem), f"{path} is not whole"

    return check


def check_model(folder: Path) -> Callable[[], None]:
    """Return a check that a model folder holds a whole model, or none."""

    def check() -> None:
        from panoptic_ros.model_zoo import MODEL_FILE, load_model

        if (folder / MODEL_FILE).exists():
            load_model(folder)

    return check


def kill_command(command: Command, rounds: int, rng: random.Random) -> tuple[int, int]:
    """Kill a command again and again, then let it end.

    Returns:
        How often it was killed at a random moment, and at a step on the disk.

    Raises:
        AssertionError, ModelError: What it has left is not whole, or it fails afterwards.
    """
    start = time.monotonic()
    steps = _run(command)
    seconds = time.monotonic() - start
    kills = [0, 0]
    while sum(kills) < rounds:
        at_step = rng.random() < 0.5
        if at_step or rng.random() < 0.5:
            _clear(command.output)
        process = subprocess.Popen(
            _words(command, rng.randint(1, steps) if at_step else 0),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        if not at_step:
            time.sleep(rng.uniform(0.4, 1.0) * seconds)
            process.send_signal(signal.SIGKILL)
        kills[at_step] += process.wait() == -signal.SIGKILL
        command.check()
    _run(command)
    return kills[0], kills[1]


def _words(command: Command, step: int) -> list[str]:
    """Return how to run a command that is killed at a step on the disk; 0 for none."""
    words = [sys.executable, "-c", KILLED_AT_STEP, str(step), str(command.output)]
    return [*words, *command.arguments]


def _run(command: Command) -> int:
    """Let a command end; returns how many steps it took on the disk."""
    run = subprocess.run(_words(command, 0), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    command.check()
    return int(run.stdout.rpartition("steps:")[2])


def _clear(output: Path) -> None:
    for path in sorted(output.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
