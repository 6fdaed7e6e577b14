"""Model folders, checkpoints to import and cached engines as fuzz targets."""

from __future__ import annotations

import io
import os
import pickle
import random
import zipfile
from pathlib import Path

import torch
import yaml

from campaigns.data_targets import CATEGORIES, HOSTILE_YAML, mutated_yaml
from campaigns.targets import Target
from panoptic_ros.checkpoints.importing import CheckpointError, read_state_dict
from panoptic_ros.engines import cache as engine_cache
from panoptic_ros.model_zoo import (
    MODEL_FILE,
    WEIGHTS_FILE,
    ModelError,
    load_model,
    parse_config,
    save_model,
)

TINY = {
    "name": "tiny",
    "network": {
        "name": "fpsnet",
        "backbone": "resnet18_half",
        "fpn_channels": 8,
        "head_channels": 8,
        "head_depth": 1,
        "feature_channels": 8,
        "panoptic_channels": 8,
        "panoptic_depth": 1,
        "num_attention": 4,
        "candidates": 20,
    },
    "categories": CATEGORIES,
    "input": {"resolution": [64, 80]},
}


def _tiny_model(folder: Path) -> tuple[bytes, bytes]:
    """Write a small model; returns its description without a checksum, and its weights."""
    config = parse_config(TINY)
    save_model(folder, config, config.build())
    fields = yaml.safe_load((folder / MODEL_FILE).read_text())
    del fields["weights"]  # a checksum would find every change of the weights
    text = yaml.safe_dump(fields).encode()
    (folder / MODEL_FILE).write_bytes(text)
    return text, (folder / WEIGHTS_FILE).read_bytes()


def model_yaml(folder: Path) -> Target:
    """The description of a model, whose weights are good."""
    text, _ = _tiny_model(folder / "model")
    example = yaml.safe_load(text)

    def use(data: bytes) -> None:
        (folder / "model" / MODEL_FILE).write_bytes(data)
        load_model(folder / "model")

    return Target(
        "model_yaml",
        [text],
        use,
        (ModelError,),
        HOSTILE_YAML,
        lambda rng: mutated_yaml(rng, example),
    )


def weights(folder: Path) -> Target:
    """The weights of a model; changes in the first bytes hit the header of safetensors."""
    _, good = _tiny_model(folder / "model")

    def use(data: bytes) -> None:
        (folder / "model" / WEIGHTS_FILE).write_bytes(data)
        load_model(folder / "model")

    def generate(rng: random.Random) -> bytes:
        changed = bytearray(good)
        for _ in range(rng.choice((1, 2, 4))):
            changed[rng.randrange(2_000)] = rng.choice(
                (rng.randrange(256), 0x30 + rng.randrange(10))
            )
        return bytes(changed)

    tokens = [b"F32", b"F64", b"I8", b"BF16", b"[0,0]", b'"dtype"', b'"shape"']
    return Target("weights", [good], use, (ModelError,), (), generate, tokens)


class _RunsCode:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def _saved(content: object, **options: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def _zip_tricks(good: bytes) -> list[bytes]:
    """Return the checkpoint compressed, with a bomb for a tensor, and with a path that leaves."""
    results = []
    for trick in ("deflated", "bomb", "path"):
        buffer = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(good)) as old, zipfile.ZipFile(buffer, "w") as new:
            for entry in old.infolist():
                content, name = old.read(entry), entry.filename
                if trick == "bomb" and "/data/" in name:
                    content = bytes(200_000_000)
                if trick == "path":
                    name = "../../" + name
                new.writestr(name, content, zipfile.ZIP_DEFLATED)
        results.append(buffer.getvalue())
    return results


def checkpoints(folder: Path) -> Target:
    """Checkpoints to import; none may run its code."""
    state = {"conv.weight": torch.zeros(4, 3, 3, 3), "conv.bias": torch.zeros(4)}
    good = [_saved(state), _saved({"model": state}, _use_new_zipfile_serialization=False)]
    marker = folder / "code_has_run"
    hostile = [
        _saved({"a": _RunsCode(marker)}),
        _saved({"a": _RunsCode(marker)}, _use_new_zipfile_serialization=False),
        pickle.dumps(_RunsCode(marker)),
        *_zip_tricks(good[0]),
    ]
    path = folder / "checkpoint.pt"

    def use(data: bytes) -> None:
        path.write_bytes(data)
        try:
            read_state_dict(path)
        finally:
            assert not marker.exists(), "the checkpoint has run its code"

    return Target("checkpoints", good, use, (CheckpointError,), hostile)


def cache(folder: Path) -> Target:
    """A cached engine: what is damaged is built again, so every input is served."""
    os.environ[engine_cache.CACHE_VARIABLE] = str(folder)
    folder.chmod(0o700)
    built = b"engine" * 100

    def build() -> tuple[bytes, bytes]:
        return built, built

    assert engine_cache.cached("key", build, bytes) == built
    good = engine_cache._path("key").read_bytes()

    def use(data: bytes) -> None:
        engine_cache._path("key").write_bytes(data)
        assert engine_cache.cached("key", build, bytes) == built

    return Target("cache", [good], use, ())
