"""Find, check, load and save models: folders with model.yaml and the weights that it names."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from panoptic_ros.data.categories import parse_categories
from panoptic_ros.input_format import InputFormat
from panoptic_ros.networks import build_network
from panoptic_ros.prediction import Category, category_fields, check_categories
from panoptic_ros.system import file_sha256, merge, read_yaml, share_directory, write_file
from panoptic_ros.truth import PredictionOptions

if TYPE_CHECKING:
    from panoptic_ros.networks.base import PanopticNetwork

MODEL_FILE = "model.yaml"
WEIGHTS_FILE, WEIGHTS_FILES = "weights.safetensors", "weights*.safetensors"
MODEL_PATH_VARIABLE = "PANOPTIC_ROS_MODEL_DIR"


class ModelError(ValueError):
    """A model cannot be found, read or built; the message names the file and the way out."""


@dataclass(frozen=True)
class ModelConfig:
    """All of a model but its weights; what model.yaml holds.

    Attributes:
        name: What users call the model.
        network: Key of ``networks.NETWORKS``.
        settings: Keyword arguments of the network's class.
        categories: Its classes.
        input: What it wants its images to look like.
        options: Thresholds it was measured with.
        card: Where the model is from and what it measured; free form, for people.
        weights: Name of the weights file in its folder.
        sha256: Of the weights file, if the configuration has one.
        folder: Where it was read from; None if it was not.
    """

    name: str
    network: str
    categories: tuple[Category, ...]
    input: InputFormat
    settings: Mapping[str, Any] = field(default_factory=dict)
    options: PredictionOptions = field(default_factory=PredictionOptions)
    card: Mapping[str, Any] = field(default_factory=dict)
    weights: str = field(default=WEIGHTS_FILE, compare=False)
    sha256: str | None = None
    folder: Path | None = field(default=None, compare=False)

    def build(self) -> PanopticNetwork:
        """Build the network with fresh weights.

        Raises:
            ModelError: The network or a setting is unknown or does not fit.
        """
        try:
            return build_network(self.network, self.categories, **self.settings)
        except Exception as error:  # what a layer says of a setting that it cannot have
            raise ModelError(f"model {self.name}: {type(error).__name__}: {error}") from error


def model_directories() -> list[Path]:
    """Return the directories that are searched for models by name, first match wins."""
    listed = os.environ.get(MODEL_PATH_VARIABLE, "")
    return [
        *(Path(entry) for entry in listed.split(os.pathsep) if entry),
        share_directory() / "models",
        Path.home() / ".cache" / "panoptic_ros",
    ]


def available_models() -> list[str]:
    """Return the names of the models that ``find_model`` finds."""
    return sorted({p.parent.name for d in model_directories() for p in d.glob(f"*/{MODEL_FILE}")})


def find_model(name_or_folder: str | Path) -> Path:
    """Return the folder of a model given by name or by path.

    Raises:
        ModelError: There is none; the message lists where it was looked for and what there is.
    """
    candidates = [Path(name_or_folder).expanduser()]
    if str(name_or_folder) == candidates[0].name:
        candidates += [directory / candidates[0] for directory in model_directories()]
    for folder in candidates:
        if (folder / MODEL_FILE).is_file():
            return folder
    raise ModelError(
        f"no model {str(name_or_folder)!r}: no {MODEL_FILE} in "
        f"{', '.join(str(folder) for folder in candidates)}. "
        f"Models found: {', '.join(available_models()) or 'none'}. "
        f"Give one of these, a path to a model folder, or add a directory to "
        f"{MODEL_PATH_VARIABLE}."
    )


def load_config(path: str | Path) -> ModelConfig:
    """Read a model.yaml, or one of the configurations in config/networks.

    Raises:
        ModelError: The file is missing, is not YAML, or a field is missing, unknown or wrong.
    """
    path = Path(path)
    fields = read_fields(path)
    try:
        return replace(parse_config(fields), folder=path.parent)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        what = f"field {error} is missing" if isinstance(error, KeyError) else str(error)
        raise ModelError(f"{path}: {what}") from error


def read_fields(path: Path, above: tuple[Path, ...] = ()) -> Any:
    """Read a configuration; its ``base``, another file beside it, is what it is laid over.

    Args:
        path: Of the file.
        above: Files that are laid over this one.

    Raises:
        ModelError: A file is missing or is not YAML, or is a base of its own.
    """
    try:
        fields = read_yaml(path)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ModelError(str(error)) from error
    if not isinstance(fields, Mapping) or "base" not in fields:
        return fields
    name = fields["base"]
    if not isinstance(name, str) or Path(name).name != name or "\0" in name:
        raise ModelError(f"{path}: base is {name!r}; expected the name of a file beside it")
    base, files = path.with_name(name), (*above, path)
    if base in files:
        raise ModelError(f"{path} has itself for its base")
    return merge(read_fields(base, files), {k: v for k, v in fields.items() if k != "base"})


def parse_config(fields: Mapping[str, Any]) -> ModelConfig:
    """Build a ModelConfig from the fields of model.yaml.

    Raises:
        KeyError: A field is missing.
        ValueError: A field is unknown or its value does not fit.
    """
    if not isinstance(fields, Mapping):
        raise ValueError(f"expected a mapping of fields, got {type(fields).__name__}")
    known = {"name", "network", "categories", "input", "prediction", "weights", "card"}
    if unknown := set(fields) - known:
        raise ValueError(f"unknown field {', '.join(sorted(unknown))}; known: {sorted(known)}")
    settings = dict(fields["network"])
    weights = {"file": WEIGHTS_FILE, "sha256": None, **(fields.get("weights") or {})}
    input_fields = {k: tuple(v) if isinstance(v, list) else v for k, v in fields["input"].items()}
    return ModelConfig(
        name=str(fields["name"]),
        network=settings.pop("name"),
        settings=settings,
        categories=check_categories(parse_categories(fields["categories"])),
        input=InputFormat(**input_fields),
        options=PredictionOptions(**fields.get("prediction") or {}),
        card=fields.get("card") or {},
        weights=_check_weights_name(weights["file"]),
        sha256=weights["sha256"],
    )


def _check_weights_name(name: Any) -> str:
    if not isinstance(name, str) or not fnmatchcase(name, WEIGHTS_FILES) or "/" in name:
        raise ValueError(f"weights: file is {name!r}; expected a name like {WEIGHTS_FILE}")
    return name


def find_weights(folder: Path, config: ModelConfig) -> Path:
    """Return the weights file of a model folder; raises ModelError if it is not there."""
    weights = folder / config.weights
    if not weights.is_file():
        raise ModelError(f"{weights} is missing; {config.name} has a description but no weights")
    return weights


def load_model(name_or_folder: str | Path) -> tuple[ModelConfig, PanopticNetwork]:
    """Load a model: its configuration, and its network in eval mode on the CPU in float32.

    Raises:
        ModelError: The model is missing or damaged, or its weights do not fit its network.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = find_model(name_or_folder)
    config = load_config(folder / MODEL_FILE)
    weights = find_weights(folder, config)
    try:
        if config.sha256 and file_sha256(weights) != config.sha256:
            raise ModelError(
                f"{weights} is damaged or not the file that {MODEL_FILE} describes (its sha256 "
                "differs); copy it again"
            )
    except OSError as error:
        raise ModelError(f"cannot read {weights}: {error.strerror}") from error
    check_shapes(config, weights)
    network = config.build()
    try:
        state = {key: value.float() for key, value in load_file(weights).items()}
        network.load_state_dict(state)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"cannot read {weights}: {error}") from error
    except RuntimeError as error:
        raise ModelError(f"{weights} does not fit network {config.network}: {error}") from error
    return config, network.eval()


def check_shapes(config: ModelConfig, weights: Path) -> None:
    """Compare the header of a weights file with what a network declares, before either is made.

    A wrong number in a model.yaml would otherwise allocate whatever it says.

    Raises:
        ModelError: The file is damaged, or a tensor is missing, unknown or of another shape.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, "pt") as file:
            given = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"cannot read {weights}: {error}") from error
    with torch.device("meta"):
        state = config.build().state_dict()
    expected = {key: tuple(value.shape) for key, value in state.items()}
    wrong = [
        f"{key} is {given.get(key, 'missing')}, expected {expected.get(key, 'none')}"
        for key in sorted(given.keys() | expected.keys())
        if given.get(key) != expected.get(key)
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        what = "; ".join(wrong[:3])
        raise ModelError(f"{weights} does not fit network {config.network}: {what}{more}")


def save_model(folder: str | Path, config: ModelConfig, network: PanopticNetwork) -> Path:
    """Write a model folder, which holds a whole model at any time: the old one or the new.

    New weights come beside those that the description names, then the description is replaced,
    then weights that it does not name are removed.

    Floating point weights are stored as they are; cast the network before to store halves.

    Returns:
        The folder.
    """
    from safetensors.torch import save

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    data = save(state)
    digest = hashlib.sha256(data).hexdigest()
    is_new = not (folder / MODEL_FILE).exists()
    name = WEIGHTS_FILE if is_new else WEIGHTS_FILES.replace("*", f"-{digest[:16]}")
    config = replace(config, weights=name, sha256=digest)
    write_file(folder / name, data)
    write_file(folder / MODEL_FILE, format_config(config).encode())
    for file in folder.glob(WEIGHTS_FILES):
        if file.name != name:
            file.unlink()
    return folder


def format_config(config: ModelConfig) -> str:
    """Return the model.yaml text of a configuration."""
    fields: dict[str, Any] = {
        "name": config.name,
        "network": {"name": config.network, **config.settings},
        "categories": category_fields(config.categories),
        "input": {
            k: list(v) if isinstance(v, tuple) else v for k, v in vars(config.input).items()
        },
        "prediction": dict(vars(config.options)),
    }
    if config.sha256:
        fields["weights"] = {"file": config.weights, "sha256": config.sha256}
    if config.card:
        fields["card"] = dict(config.card)
    return yaml.safe_dump(fields, sort_keys=False, default_flow_style=None, width=99)
