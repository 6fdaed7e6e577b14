"""``panoptic train``: a whole run, from the recipe to the trained model."""

from __future__ import annotations

import copy
import json
import logging
import platform
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from panoptic_ros.model_zoo import ModelConfig, save_model
from panoptic_ros.system import keep_freed_memory, write_file
from panoptic_ros.training.batches import (
    PartSampler,
    load_batches,
    seed_all,
    training_mix,
)
from panoptic_ros.training.checkpoint import find_checkpoint, plain, save_checkpoint
from panoptic_ros.training.device_batches import device_mix
from panoptic_ros.training.distributed import Processes, process_group
from panoptic_ros.training.fields import RecipeError
from panoptic_ros.training.progress import LOG_FILE, NoProgress, Progress
from panoptic_ros.training.recipe import Recipe, Stage, load_recipe
from panoptic_ros.training.schedule_clock import ScheduleClock
from panoptic_ros.training.stage_trainer import StageTrainer, TrainingBatch
from panoptic_ros.training.start import model_config, start_network
from panoptic_ros.training.validation import Validation, validation

CHECKPOINT_FILE = "checkpoint.pt"
BEST_FOLDER = "best"
LAST_FOLDER = "last"
MOST_STEPS = 10**9  # where the clock ends a stage

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingResult:
    """What a run has produced.

    Attributes:
        last: Model folder with the last weights.
        best: Model folder with the best ones; None when nothing was evaluated.
        scores: What the evaluation said of the best.
    """

    last: Path
    best: Path | None
    scores: Mapping[str, float]


def train(
    config: str | Path | Mapping[str, Any],
    output: str | Path,
    resume: bool = True,
    device: str = "auto",
    changes: Mapping[str, Any] | None = None,
    evaluation: Validation | None = None,
    minutes: float | None = None,
) -> TrainingResult:
    """Train a model as a recipe says, from the last checkpoint in ``output`` if there is one.

    ``output`` receives checkpoint.pt, recipe.yaml, log.jsonl, tensorboard/ and the model folders
    best/ and last/, and one named after each stage but the last with what it ended with. Under
    torchrun every process calls this alike.

    Args:
        config: Recipe file, or its content.
        output: Folder of the run.
        resume: Go on from the checkpoint; False starts anew and replaces it.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        changes: Laid over the recipe's fields.
        evaluation: Gives a network scores, of which ``pq`` counts; replaces the validation data
            of the recipe.
        minutes: Fit the schedule to the clock: train for so long instead of for the recipe's
            iterations, which then only tell how the stages share it. Evaluations come on top.

    Raises:
        RecipeError: The recipe does not fit.
        TrainingError: A loss is not finite; the checkpoint before it is intact.
        ValueError: ``minutes`` is not more than 0.
    """
    recipe = load_recipe(config, changes)
    keep_freed_memory()
    with process_group(device) as processes:
        if minutes is not None and processes.world > 1:
            raise RecipeError("minutes: for one process; each has a clock of its own")
        return _Run(recipe, Path(output), processes, evaluation, minutes).train(resume)


class _Run:
    """A recipe on its way through its stages."""

    def __init__(
        self,
        recipe: Recipe,
        output: Path,
        processes: Processes,
        evaluation: Validation | None,
        minutes: float | None,
    ) -> None:
        self._recipe, self._output, self._processes = recipe, output, processes
        self._evaluation = evaluation
        iterations = [stage.iterations for stage in recipe.stages]
        self._clocks = [ScheduleClock.of(iterations, n, minutes) for n in range(len(iterations))]
        self._scores: dict[str, float] = {}  # of best/, in the stage at work
        self._seconds = 0.0  # of work on the run, runs that this one resumes included
        self._begin: float | None = None  # of the stage at work, in these seconds

    def train(self, resume: bool) -> TrainingResult:
        """Train all stages that the checkpoint does not have behind it."""
        self._output.mkdir(parents=True, exist_ok=True)
        checkpoint = (
            find_checkpoint(self._output / CHECKPOINT_FILE, self._recipe) if resume else None
        )
        if self._processes.is_first:
            text = yaml.safe_dump(plain(self._recipe), sort_keys=False)
            write_file(self._output / "recipe.yaml", text.encode())
            if checkpoint is None:
                (self._output / LOG_FILE).unlink(missing_ok=True)
        weights: Mapping[str, Tensor] | None = None
        for number in range(checkpoint["stage"] if checkpoint else 0, len(self._recipe.stages)):
            weights = self._train_stage(number, weights, checkpoint)
            checkpoint = None
        best = self._output / BEST_FOLDER if self._scores else None
        return TrainingResult(self._output / LAST_FOLDER, best, self._scores)

    def _train_stage(
        self,
        number: int,
        weights: Mapping[str, Tensor] | None,
        checkpoint: Mapping[str, Any] | None,
    ) -> Mapping[str, Tensor]:
        """Train one stage and return the weights that the next one starts from."""
        start = time.monotonic()
        stage, seed = self._recipe.stages[number], self._recipe.seed + number
        config = model_config(stage)
        evaluation = self._evaluation
        if self._recipe.validation and not evaluation:
            device = str(self._processes.device)
            evaluation = validation(self._recipe.validation, config, device)
        seed_all((seed, 0))
        network = start_network(config, stage, weights)
        trainer = StageTrainer(network, stage, config.input, self._processes, seed)
        self._scores, self._begin = {}, None
        if checkpoint:
            trainer.load_state_dict(checkpoint["trainer"])
            self._scores, self._seconds = checkpoint["scores"], checkpoint["seconds"]
            self._begin = checkpoint.get("begin")
        clock = self._clocks[number]
        progress = self._progress(stage, clock, trainer.step)
        try:
            for is_last in self._steps(trainer, stage, config, seed, clock, progress, start):
                if evaluation and (is_last or trainer.step % self._recipe.evaluate_every == 0):
                    self._evaluate(trainer, config, evaluation, progress)
                if is_last or trainer.step % self._recipe.checkpoint_every == 0:
                    self._save_checkpoint(number, trainer)
        finally:
            progress.close()
        if self._processes.is_first:
            is_last = number == len(self._recipe.stages) - 1
            for folder in [LAST_FOLDER] if is_last else [stage.name, LAST_FOLDER]:
                self._save_model(folder, config, trainer, {})
        return trainer.result.state_dict()

    def _steps(
        self,
        trainer: StageTrainer,
        stage: Stage,
        config: ModelConfig,
        seed: int,
        clock: ScheduleClock,
        progress: Progress,
        start: float,
    ) -> Iterator[bool]:
        """Make the stage's steps from the trainer's on; yields whether that was the last.

        Counts the seconds they take, from ``start`` on, without what is done between them.
        """
        sampler = PartSampler(
            range(trainer.step, stage.iterations if clock.end is None else MOST_STEPS),
            stage.batch,
            stage.accumulate,
            self._processes.rank,
            self._processes.world,
        )
        if trainer.step and clock.is_over(trainer.step, self._seconds):
            return
        for batch in _grouped(self._batches(stage, config, seed, sampler), stage.accumulate):
            seconds = self._seconds + time.monotonic() - start
            if self._begin is None:  # what loading took is no warm-up
                self._begin = seconds
            clock = replace(clock, begin=self._begin)
            place = clock.place(trainer.step, seconds)
            progress.step(trainer.step + 1, trainer.train_step(batch, place))
            self._seconds += time.monotonic() - start
            is_last = clock.is_over(trainer.step, self._seconds)
            yield is_last
            if is_last:
                return
            start = time.monotonic()

    def _batches(
        self, stage: Stage, config: ModelConfig, seed: int, sampler: PartSampler
    ) -> Iterable[TrainingBatch]:
        if self._recipe.on_device:
            mix = device_mix(stage, config.categories, seed, self._processes.device)
            return mix.batches(sampler)
        mix = training_mix(stage, config.categories, seed)
        return load_batches(mix, sampler, self._recipe.workers)

    def _progress(self, stage: Stage, clock: ScheduleClock, done: int) -> Progress:
        if not self._processes.is_first:
            return NoProgress()
        steps = stage.iterations if clock.end is None else None
        return Progress(self._output, stage.name, steps, done, self._recipe.log_every)

    def _evaluate(
        self,
        trainer: StageTrainer,
        config: ModelConfig,
        evaluation: Validation,
        progress: Progress,
    ) -> None:
        """Score the weights in the first process; keep them in best/ when their PQ is the best."""
        if self._processes.is_first:
            scores = dict(evaluation(copy.deepcopy(trainer.result).eval()))
            progress.record(trainer.step, {f"validation/{k}": v for k, v in scores.items()})
            logger.info("step %d: %s", trainer.step, scores)
            if not self._scores or scores["pq"] > self._scores["pq"]:
                self._scores = scores
                self._save_model(BEST_FOLDER, config, trainer, scores)
        self._processes.wait()

    def _save_checkpoint(self, number: int, trainer: StageTrainer) -> None:
        if self._processes.is_first:
            state = {
                "stage": number,
                "trainer": trainer.state_dict(),
                "scores": self._scores,
                "seconds": self._seconds,
                "begin": self._begin,
                "recipe": json.dumps(plain(self._recipe)),
            }
            save_checkpoint(self._output / CHECKPOINT_FILE, state)

    def _save_model(
        self,
        folder: str,
        config: ModelConfig,
        trainer: StageTrainer,
        scores: Mapping[str, float],
    ) -> None:
        facts = {
            "steps": trainer.step,
            "hours_of_all_stages": round(self._seconds / 3600, 2),
            "hardware": _hardware(self._processes),
            **({"validation": {k: round(v, 4) for k, v in scores.items()}} if scores else {}),
        }
        card = {**config.card, "training": facts}
        save_model(self._output / folder, replace(config, card=card), trainer.result)


def _grouped(batches: Iterable[TrainingBatch], size: int) -> Iterator[list[TrainingBatch]]:
    """Yield the parts of each step."""
    iterator = iter(batches)
    while parts := list(islice(iterator, size)):
        yield parts


def _hardware(processes: Processes) -> str:
    if processes.device.type == "cuda":
        name = torch.cuda.get_device_name(processes.device)
    else:
        name = f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    return f"{processes.world} x {name}"
