"""Training recipes: everything that decides what a training run computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from panoptic_ros.model_zoo import ModelError, read_fields
from panoptic_ros.system import merge, read_yaml
from panoptic_ros.training.fields import RecipeError, convert, expand, parse

OPTIMISERS = ("sgd", "adamw", "adadelta")
SCHEDULES = ("poly", "cosine", "steps", "constant")
NO_DECAY = ("norm", "bias")
PRECISIONS = ("auto", "bf16", "fp16", "fp32")


@dataclass(frozen=True)
class OptimiserSettings:
    """The optimiser.

    Attributes:
        name: ``sgd``, ``adamw`` or ``adadelta``.
        lr: Base learning rate.
        weight_decay: Decay factor (decoupled from the gradient in adamw).
        momentum: Of sgd.
        betas: Of adamw.
        no_decay: What has no weight decay: ``norm`` (normalisation layers), ``bias`` (all biases).
    """

    name: str
    lr: float
    weight_decay: float = 0.0
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    no_decay: tuple[str, ...] = ("norm",)

    def __post_init__(self) -> None:
        """Check the values."""
        _one_of("name", self.name, OPTIMISERS)
        for kind in self.no_decay:
            _one_of("no_decay", kind, NO_DECAY)
        _check(self.lr > 0, f"lr is {self.lr}; expected more than 0")
        _check(self.weight_decay >= 0, f"weight_decay is {self.weight_decay}; expected 0 or more")


@dataclass(frozen=True)
class ScheduleSettings:
    """How the learning rate changes over the steps of a stage.

    Attributes:
        name: ``poly``, ``cosine``, ``steps`` or ``constant``.
        power: Exponent of poly.
        final: What cosine ends at, as a part of the base learning rate.
        milestones: Steps at which steps multiplies the rate with gamma.
        gamma: Factor of steps.
        warmup: Steps of linear warm-up, which multiplies the schedule.
        warmup_factor: What the warm-up starts at.
    """

    name: str = "poly"
    power: float = 0.9
    final: float = 0.0
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    warmup: int = 0
    warmup_factor: float = 0.001

    def __post_init__(self) -> None:
        """Check the values."""
        _one_of("name", self.name, SCHEDULES)
        _check(self.warmup >= 0, f"warmup is {self.warmup}; expected 0 or more steps")
        _check(
            list(self.milestones) == sorted(self.milestones),
            f"milestones are {list(self.milestones)}; expected ascending steps",
        )


@dataclass(frozen=True)
class DataSource:
    """One data set of the training mix.

    Attributes:
        set: Kind of data set, a key of ``batches.DATA_SETS``.
        weight: Its part of the samples, relative to the other sources.
        settings: Keyword arguments of the data set.
    """

    set: str
    weight: float = 1.0
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the weight."""
        _check(self.weight > 0, f"weight is {self.weight}; expected more than 0")


@dataclass(frozen=True)
class StartSettings:
    """Where the weights of a stage come from.

    Attributes:
        model: Model folder to take weights from; empty for the stage before this one, or for
            fresh weights in the first stage.
        backbone: File with ImageNet weights of torchvision's ResNet (.pth) for the module
            ``backbone``; empty for none.
        copy: Prefixes that are filled from elsewhere in those weights: {prefix: source prefix}.
        fresh: Prefixes of parameters that get fresh values.
        freeze: Prefixes of modules that are not trained and keep their statistics.
    """

    model: str = ""
    backbone: str = ""
    copy: dict[str, str] = field(default_factory=dict)
    fresh: tuple[str, ...] = ()
    freeze: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stage:
    """One stage of a recipe: one optimisation from start to end.

    Attributes:
        name: Shown in the progress, and of the folder with what it ended with; unique.
        model: Fields of a model.yaml without weights: network, categories, input, prediction.
        data: The training mix.
        augmentation: Keyword arguments of ``data.augmentation.Augmentation``.
        iterations: Optimiser steps.
        batch: Images per optimiser step, over all processes and accumulated parts together.
        accumulate: Parts that a step's batch is split into, one after the other.
        optimiser: The optimiser.
        schedule: The learning rate's course.
        clip_norm: Largest L2 norm of the whole gradient; none when absent.
        clip_value: Largest absolute value of a gradient element; none when absent.
        class_weights: {category name: what its pixels count in the cross-entropy over classes},
            1 where not given. Panoptic FCN, whose losses count classes alike, takes none.
        precision: ``auto``, ``bf16``, ``fp16`` or ``fp32`` of the forward pass.
        ema: Decay of the moving average of the weights, 0 for none. The average is what is
            evaluated and saved.
        start: Where the weights come from.
    """

    model: dict[str, Any]
    data: tuple[DataSource, ...]
    augmentation: dict[str, Any]
    iterations: int
    batch: int
    optimiser: OptimiserSettings
    name: str = "train"
    accumulate: int = 1
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    clip_norm: float | None = None
    clip_value: float | None = None
    class_weights: dict[str, float] = field(default_factory=dict)
    precision: str = "auto"
    ema: float = 0.0
    start: StartSettings = field(default_factory=StartSettings)

    def __post_init__(self) -> None:
        """Check the values."""
        _check(len(self.data) > 0, "data is empty; expected at least one data set")
        for name in ("iterations", "batch", "accumulate"):
            value = getattr(self, name)
            _check(value >= 1, f"{name} is {value}; expected 1 or more")
        _check(
            self.batch % self.accumulate == 0,
            f"batch {self.batch} cannot be split into {self.accumulate} equal parts (accumulate)",
        )
        _check(0 <= self.ema < 1, f"ema is {self.ema}; expected 0 up to, not including, 1")
        _one_of("precision", self.precision, PRECISIONS)


@dataclass(frozen=True)
class Recipe:
    """A training run.

    Attributes:
        stages: Run one after the other, each starting from the weights of the former.
        validation: Data set that the best weights are chosen by; none when absent.
        seed: Of the initial weights, the data order and all augmentation.
        workers: Processes that prepare batches; 0 for none.
        on_device: Keep all images decoded on the device, and augment whole batches there, without
            workers. For data sets that fit into its memory; ``data.views`` names the differences.
        log_every: Steps between two log entries.
        evaluate_every: Steps between two evaluations; also made after the last step of a stage.
        checkpoint_every: Steps between two checkpoints, which is what a kill may cost.
    """

    stages: tuple[Stage, ...]
    validation: DataSource | None = None
    seed: int = 0
    workers: int = 1
    on_device: bool = False
    log_every: int = 20
    evaluate_every: int = 1000
    checkpoint_every: int = 200

    def __post_init__(self) -> None:
        """Check the values."""
        for name in ("log_every", "evaluate_every", "checkpoint_every"):
            value = getattr(self, name)
            _check(value >= 1, f"{name} is {value}; expected 1 or more")
        _check(self.seed >= 0, f"seed is {self.seed}; expected 0 or more")
        _check(self.workers >= 0, f"workers is {self.workers}; expected 0 or more")
        names = [stage.name for stage in self.stages]
        _check(len(set(names)) == len(names), f"stages have the names {names}; expected unique")
        taken = sorted({*names} & {"best", "last", "tensorboard"} | {n for n in names if "/" in n})
        _check(not taken, f"stages are named {taken}, which are no or other folders' names")


def load_recipe(
    source: str | Path | Mapping[str, Any], changes: Mapping[str, Any] | None = None
) -> Recipe:
    """Read and check a recipe.

    The fields of ``Stage`` stand at the top level; the list ``stages`` repeats only what differs
    from them. ``model`` holds the fields of a model.yaml; ``config`` among them names a file that
    they are laid over, relative to the recipe, and a plain text for ``model`` is that name alone.
    ``${NAME}`` anywhere stands for the environment variable NAME.

    Args:
        source: YAML file, or its content.
        changes: Laid over the recipe, for trying things without a new file.

    Raises:
        RecipeError: The file or a field does not fit; the message names it.
    """
    if isinstance(source, Mapping):
        content, where, folder = dict(source), "recipe", Path()
    else:
        where, folder = str(source), Path(source).parent
        content = _read_yaml(Path(source))
    content = expand(merge(content, changes or {}))
    run_fields = {f.name for f in fields(Recipe)} - {"stages"}
    run = {key: content.pop(key) for key in run_fields & set(content)}
    listed = convert(content.pop("stages", [{}]), tuple[dict, ...], f"{where}: stages")
    if "model" in content:
        content["model"] = _model_fields(content["model"], folder, where)
    stages = [
        merge(content, {"name": f"stage{i}", **stage}) for i, stage in enumerate(listed, start=1)
    ]
    return parse(Recipe, {**run, "stages": stages}, where)


def _model_fields(model: Any, folder: Path, where: str) -> dict[str, Any]:
    """Return the fields of a model configuration, those of the file it names included."""
    if isinstance(model, str):
        model = {"config": model}
    fields_given = convert(model, dict, f"{where}: model")
    if "config" not in fields_given:
        return fields_given
    path = convert(fields_given.pop("config"), str, f"{where}: model.config")
    try:
        return merge(read_fields(folder / path), fields_given)
    except ModelError as error:
        raise RecipeError(f"{where}: model.config: {error}") from error


def _read_yaml(path: Path) -> Mapping[str, Any]:
    try:
        content = read_yaml(path)
    except OSError as error:
        raise RecipeError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise RecipeError(str(error)) from error
    if not isinstance(content, Mapping):
        raise RecipeError(f"{path}: expected a mapping of fields, got {content!r}")
    return content


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    _check(value in known, f"unknown {name} {value!r}; known are {', '.join(known)}")
