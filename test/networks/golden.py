"""Reference outputs of the authors' implementations, and how their inputs are rebuilt.

A golden file (``*.npz``) holds what the official code computed, and a ``recipe`` from which its
weights and its image follow without a file. The folder is ``PANOPTIC_GOLDEN_DIR``, by default
``../shared/models/golden`` beside the repository; official key lists lie in ``checkpoint_keys``
next to it. Where there is none, the tests are skipped.
"""

from __future__ import annotations

import ast
import json
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

_MODELS = Path(__file__).resolve().parents[3] / "shared" / "models"
GOLDEN_DIR = Path(os.environ.get("PANOPTIC_GOLDEN_DIR") or _MODELS / "golden")


def golden_files(pattern: str) -> list:
    """Return pytest parameters: the files of ``GOLDEN_DIR`` that match, or one that skips."""
    if found := sorted(GOLDEN_DIR.glob(pattern)):
        return [pytest.param(path, id=path.stem) for path in found]
    skip = pytest.mark.skip(reason=f"no {pattern} in {GOLDEN_DIR} (PANOPTIC_GOLDEN_DIR)")
    return [pytest.param(None, id=pattern, marks=skip)]


def load_golden(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the recipe and the fields of a golden file."""
    with np.load(path) as archive:
        fields = {name: archive[name] for name in archive.files}
    return json.loads(str(fields.pop("recipe"))), fields


def official_keys(name: str) -> list[tuple[str, tuple[int, ...]]]:
    """Return keys and shapes of an official state dict (``keys_<name>.txt``) or skip the test."""
    for folder in (GOLDEN_DIR.parent, _MODELS):
        path = folder / "checkpoint_keys" / f"keys_{name}.txt"
        if path.is_file():
            rows = [line.split("\t") for line in path.read_text().splitlines() if line.strip()]
            return [(key, ast.literal_eval(shape)) for key, shape, *_ in rows]
    pytest.skip(f"no checkpoint_keys/keys_{name}.txt beside {GOLDEN_DIR} or in {_MODELS}")


def rebuild_state(
    recipe: dict[str, Any], keys: Iterable[tuple[str, tuple[int, ...]]]
) -> dict[str, Tensor]:
    """Draw the weights of a recipe: one seeded generator per official key."""
    state = {key: _draw(recipe["salt"], key, shape) for key, shape in keys}
    for key, (operation, value) in recipe["tweak"].items():
        state[key] = state[key] * value if operation == "mul" else state[key].fill_(value)
    return state


def _draw(salt: str, key: str, shape: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32((salt + key).encode()))
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    if key.endswith("running_mean"):
        return 0.1 * torch.randn(shape, generator=generator)
    if key.endswith("running_var"):
        return 0.5 + torch.rand(shape, generator=generator)
    if key.endswith(".scale"):
        return 0.9 + 0.2 * torch.rand(shape, generator=generator)
    if key.endswith("bias"):
        return 0.1 * torch.randn(shape, generator=generator)
    if len(shape) == 1:
        return 0.75 + 0.5 * torch.rand(shape, generator=generator)
    fan_in = shape[1] * shape[2] * shape[3]
    return torch.randn(shape, generator=generator) * (2.0 / fan_in) ** 0.5


def rebuild_image(recipe: dict[str, Any]) -> Tensor:
    """Draw the image of a recipe: float32, (1, 3, H, W), RGB, whole numbers 0..255."""
    height, width = recipe["image_size"]
    generator = torch.Generator().manual_seed(recipe["image_seed"])
    coarse = torch.rand(1, 3, 6, 9, generator=generator)
    noise = torch.rand(3, height, width, generator=generator)
    blocks = interpolate(coarse, size=(height, width), mode="nearest")
    return ((blocks * 0.85 + noise * 0.15) * 255).round()


def unpack_masks(packed: np.ndarray, width: int) -> Tensor:
    """Unpack masks whose bits are packed along the width: bool, (..., H, width)."""
    return torch.from_numpy(np.unpackbits(packed, axis=-1)[..., :width].astype(bool))


def assert_maps_equal(name: str, actual: Tensor, expected: np.ndarray, relative: float) -> None:
    """Compare dense maps: the largest difference, relative to the map's largest magnitude."""
    reference = torch.from_numpy(expected)
    assert actual.shape == reference.shape, f"{name}: {actual.shape} != {reference.shape}"
    error = (actual - reference).abs().max() / reference.abs().max().clamp(min=1e-12)
    assert error <= relative, f"{name}: relative error {error:.2e} > {relative:.0e}"


def assert_masks_equal(name: str, actual: Tensor, expected: Tensor, part: float = 0.999) -> None:
    """Compare masks or label maps: at least ``part`` of all pixels are equal."""
    assert actual.shape == expected.shape, f"{name}: {actual.shape} != {expected.shape}"
    equal = (actual == expected).double().mean()
    assert equal >= part, f"{name}: {equal:.5%} of pixels equal, expected {part:.1%}"
