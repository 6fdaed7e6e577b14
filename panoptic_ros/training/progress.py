"""What a training run tells: progress bar, TensorBoard, and a log with one JSON line per entry."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from panoptic_ros.system import write_file

LOG_FILE = "log.jsonl"

logger = logging.getLogger(__name__)


class Progress:
    """Shows and records the progress of one stage.

    Args:
        folder: Receives ``log.jsonl`` and TensorBoard's event files.
        stage: Name of the stage.
        iterations: Steps of the stage; None where the clock ends it.
        done: Steps that were done before, by a run that this one resumes.
        every: Steps between two entries, which hold means over the steps since the last.
    """

    def __init__(
        self, folder: Path, stage: str, iterations: int | None, done: int, every: int
    ) -> None:
        self._stage, self._every = stage, every
        self._sums: dict[str, float] = defaultdict(float)
        self._count = 0
        _forget_steps(folder / LOG_FILE, stage, done)
        self._log = (folder / LOG_FILE).open("a", encoding="utf-8")
        self._board = _tensorboard(folder, stage, done)
        self._lines = None if sys.stderr.isatty() else _Lines(stage, iterations, done)
        self._bar = tqdm(
            desc=stage,
            total=iterations,
            initial=done,
            unit="step",
            dynamic_ncols=True,
            disable=self._lines is not None,
        )

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Count one step.

        Args:
            step: Steps done, this one included.
            values: Loss terms and what else is to be logged.
        """
        self._bar.update()
        if self._lines:
            self._lines.step(step, values)
        self._count += 1
        for name, value in values.items():
            self._sums[name] += value
        if step % self._every == 0:
            means = {name: total / self._count for name, total in self._sums.items()}
            self._bar.set_postfix_str(
                " ".join(f"{name} {value:.4g}" for name, value in means.items()), refresh=False
            )
            self.record(step, means)
            self._sums.clear()
            self._count = 0

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Write an entry to the log and to TensorBoard."""
        rounded = {name: float(f"{value:.6g}") for name, value in values.items()}
        self._log.write(json.dumps({"stage": self._stage, "step": step, **rounded}) + "\n")
        self._log.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """End the bar and close the files."""
        self._bar.close()
        self._log.close()
        if self._board is not None:
            self._board.close()


class _Lines:
    """Tells where there is no terminal: the first step at once, then a line every few seconds."""

    PERIOD = 10.0  # seconds

    def __init__(self, stage: str, iterations: int | None, done: int) -> None:
        self._stage, self._iterations = stage, iterations
        self._start, self._done = time.monotonic(), done
        self._due = 0.0

    def step(self, step: int, values: Mapping[str, float]) -> None:
        now = time.monotonic()
        if now < self._due and step != self._iterations:
            return
        self._due = now + self.PERIOD
        rate = (step - self._done) / (now - self._start)
        told = " ".join(f"{name} {value:.4g}" for name, value in values.items())
        count = f"{step} of {self._iterations}" if self._iterations else f"{step}"
        line = f"{self._stage}: step {count}, {rate:.2f} steps/s, {told}"
        print(line, file=sys.stderr, flush=True)


class NoProgress(Progress):
    """Tells nothing; for all processes but the first."""

    def __init__(self) -> None:
        """Open nothing."""

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Do nothing."""

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def _forget_steps(log: Path, stage: str, done: int) -> None:
    """Drop what a run wrote between its last checkpoint and its end: those steps come again."""
    if not log.exists():
        return
    rows = log.read_text(encoding="utf-8").splitlines()
    kept = [row for row in rows if _is_done(row, stage, done)]
    if kept != rows:
        write_file(log, "".join(f"{row}\n" for row in kept).encode())


def _is_done(row: str, stage: str, done: int) -> bool:
    try:
        entry = json.loads(row)
    except json.JSONDecodeError:  # half a row, cut off by a kill
        return False
    return entry["stage"] != stage or entry["step"] <= done


def _tensorboard(folder: Path, stage: str, done: int):
    """Return a TensorBoard writer, or None where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        logger.info("TensorBoard is not installed; the log is %s only", folder / LOG_FILE)
        return None
    return SummaryWriter(folder / "tensorboard" / stage, purge_step=done + 1)
