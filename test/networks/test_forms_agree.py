"""A whole frame by the kernels for CUDA, in Triton's interpreter, and by the forms for CPUs."""

from __future__ import annotations

from contextlib import ExitStack
from unittest.mock import patch

import pytest
import torch
from torch.nn import functional as F

from panoptic_ros.model_zoo import load_config
from panoptic_ros.ops import (
    agreement,
    dynamic_kernels,
    mean_shift,
    merging,
    nearest,
    segments,
    suppression,
    upsampling,
)
from panoptic_ros.truth import FrameSize, PredictionOptions

from ..shared_data import REPOSITORY

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="kernels run on a GPU here")


def forms_for_cuda():
    """The forms for CPUs, each with the one that takes its place."""
    from panoptic_ros.ops import dynamic_kernels_triton, nearest_triton

    def keep(boxes, labels, scores, threshold):
        return suppression._keep_on_cuda(boxes, labels, scores, threshold, scores.shape[1])

    def argmax(logits, step, best=None):
        return upsampling._argmax_on_cuda(logits, [step])

    def pool(regions, kernels):
        return dynamic_kernels_triton.pool_regions(list(regions), list(kernels))

    return (
        (merging, "_merge_one_by_one", merging._merge_on_cuda),
        (suppression, "_keep_on_cpu", keep),
        (agreement, "_where_likely", agreement._on_cuda),
        (upsampling, "_argmax_between_cells", argmax),
        (upsampling, "_argmax_everywhere", upsampling._argmax_on_cuda),
        (segments, "_label_on_cpu", segments._label_on_cuda),
        (mean_shift, "_climb_by_group", mean_shift._climb_on_cuda),
        (mean_shift, "_keep_first_on_host", mean_shift._keep_first_on_cuda),
        (nearest, "_mean_probability", nearest_triton.cluster_scores),
        (nearest.Classes, "of", classmethod(lambda cls, *given: cls(*given, None))),
        (dynamic_kernels, "_mask_scores", dynamic_kernels_triton.mask_scores),
        (dynamic_kernels, "_center_peaks", dynamic_kernels_triton.center_peaks),
        (dynamic_kernels, "_pool_regions", lambda *x: dynamic_kernels.Pooled(*pool(*x))),
    )


def random_maps(network, size):
    """What ``forward`` may return: smooth maps, sure enough that there are things."""
    generator = torch.Generator().manual_seed(1)
    raw = network(torch.randn(1, 3, *network.padded_size(size), generator=generator))
    for name, value in raw.items():
        if name.startswith("offsets") or name in ("anchors", "box_deltas"):
            continue
        noise = torch.randn(value.shape, generator=generator)
        if value.ndim == 4 and min(value.shape[2:]) > 8:
            noise = 9 * F.avg_pool2d(noise, 9, 1, 4)
        raw[name] = 1.5 * noise - (2 if "class" in name or "centers" in name else 0)
    return raw


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("dense_detection", FrameSize((96, 128), (90, 120))),
        ("epsnet", FrameSize((288, 288), (40, 60))),
        ("fpsnet", FrameSize((96, 128), (90, 120))),
        ("panonet", FrameSize((96, 128), (90, 120))),
        ("panoptic_fcn", FrameSize((96, 128), (90, 120))),
    ],
)
def test_labels_and_table_are_the_same(name, size):
    torch.manual_seed(0)
    network = load_config(REPOSITORY / f"config/networks/{name}_small.yaml").build().eval()
    options = PredictionOptions(0.1, 0.5, 10)
    with torch.inference_mode():
        raw = random_maps(network, size.valid)

        def encoded():
            (found,) = network.predict(raw, [size], options)
            return segments.encode_segments(found, network.thing_ids, 10)

        plain = encoded()
        with ExitStack() as stack:
            for place, form, other in forms_for_cuda():
                stack.enter_context(patch.object(place, form, other))
            ours = encoded()
    shown, also_shown = (item.table[item.table[:, 1] > 0] for item in (plain, ours))
    assert len(shown) > 4
    assert (ours.labels == plain.labels).float().mean() >= 0.999
    torch.testing.assert_close(also_shown[:, [0, 6]], shown[:, [0, 6]], rtol=0, atol=1e-5)
