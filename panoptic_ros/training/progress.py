"""What a training run tells: progress bar, TensorBoard, and a log with one JSON line per entry."""

from __future__ import annotations

import json
import logging
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

LOG_FILE = "log.jsonl"

logger = logging.getLogger(__name__)


class Progress:
    """Shows and records the progress of one stage.

    Args:
        folder: Receives ``log.jsonl`` and TensorBoard's event files.
        stage: Name of the stage.
        iterations: Steps of the stage.
        done: Steps that were done before, by a run that this one resumes.
        every: Steps between two entries, which hold means over the steps since the last.
    """

    def __init__(self, folder: Path, stage: str, iterations: int, done: int, every: int) -> None:
        self._stage, self._every = stage, every
        self._sums: dict[str, float] = defaultdict(float)
        self._count = 0
        self._log = (folder / LOG_FILE).open("a", encoding="utf-8")
        self._board = _tensorboard(folder, stage, done)
        self._bar = tqdm(
            desc=stage,
            total=iterations,
            initial=done,
            unit="step",
            dynamic_ncols=True,
            mininterval=0.5 if sys.stderr.isatty() else 60,
        )

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Count one step.

        Args:
            step: Steps done, this one included.
            values: Loss terms and what else is to be logged.
        """
        self._bar.update()
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


def _tensorboard(folder: Path, stage: str, done: int):
    """Return a TensorBoard writer, or None where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        logger.info("TensorBoard is not installed; the log is %s only", folder / LOG_FILE)
        return None
    return SummaryWriter(folder / "tensorboard" / stage, purge_step=done + 1)
