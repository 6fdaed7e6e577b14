"""Compile the kernels of ``panoptic_ros/ops`` for a GPU that need not be there.

``python -m test.ops.compiling CAPABILITY`` calls every operation on tensors of the CPU; whatever
it would launch is compiled down to the GPU's code by the assembler that Triton brings, and is not
launched. A line for each kernel is printed. Run by ``test_triton``, in a process of its own, since
there Triton must not be in its interpreter.
"""

from __future__ import annotations

import sys

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction


class Absent:
    """What Triton asks a driver for when it compiles, for a GPU that is not there."""

    def __init__(self, capability: int) -> None:
        self._target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def only_compile(capability: int) -> list[str]:
    """Make every launch a compilation; the names of what is compiled are added to the list."""
    names: list[str] = []
    run = JITFunction.run

    def compiled(function, *arguments, grid, warmup, **settings):
        kernel = run(function, *arguments, grid=grid, warmup=True, **settings)
        assert kernel.asm["cubin"]
        if function.__name__ not in names:
            names.append(function.__name__)
        return kernel

    JITFunction.run = compiled
    driver.set_active(Absent(capability))
    return names


def call_all(dtype: torch.dtype) -> None:
    """Call every operation once, in sizes that the networks have."""
    from panoptic_ros.ops.agreement_triton import dense_soft_masks
    from panoptic_ros.ops.deformable_triton import convolve_half
    from panoptic_ros.ops.dynamic_kernels_triton import center_peaks, mask_scores, pool_regions
    from panoptic_ros.ops.mean_shift_triton import climb
    from panoptic_ros.ops.merging_triton import merge_soft_masks
    from panoptic_ros.ops.nearest_triton import cluster_scores, nearest_of_class, paint_clusters
    from panoptic_ros.ops.segments_triton import label_segments
    from panoptic_ros.ops.suppression_triton import greedy_keep
    from panoptic_ros.ops.upsampling_triton import upsampled_argmax
    from panoptic_ros.ops.walk_triton import keep_first

    if dtype == torch.bfloat16:
        x, offsets = (torch.rand(1, n, 8, 9, dtype=dtype) for n in (256, 27))
        convolve_half(x, offsets, torch.rand(256, 256, 3, 3, dtype=dtype), None)
    boxes, labels = torch.rand(2, 1000, 4), torch.zeros(2, 1000, dtype=torch.int64)
    greedy_keep(boxes, labels, torch.ones(2, 1000), 0.5, 100)
    dense_soft_masks(boxes[0, :100], labels[0, :100], torch.rand(5, 8, 9, 4), torch.rand(8, 8, 9))
    keep_first(torch.ones(128, 128, dtype=torch.bool), torch.ones(128, dtype=torch.bool))
    points, groups = torch.rand(4000, 12), torch.zeros(4000, dtype=torch.int64)
    features = torch.rand(12, 4000, dtype=dtype)
    nearest = nearest_of_class(features, torch.ones(8), points[:128], groups[:128])
    paint_clusters(torch.zeros(200, 320, dtype=torch.int16), nearest, groups[:128], 4)
    cluster_scores(torch.rand(19, 4000, dtype=dtype), groups, groups, 128)
    climb(points[:128], groups[:128], points, groups, 2)
    ids, scores = torch.arange(120), torch.rand(120)
    slots = torch.zeros(64, 2048, dtype=torch.int32)
    label_segments(slots, ids, scores, ids[:8], torch.tensor(64), 256, 255)
    maps = torch.rand(1, 54, 20, 30, dtype=dtype)
    center_peaks(maps, 3), center_peaks(maps, 5)
    pool_regions([maps], [torch.rand(1, 256, 20, 30, dtype=dtype)])
    mask_scores(torch.rand(1, 250, 54), maps, 0.4)
    used, limit = torch.ones(100, dtype=torch.bool), torch.tensor(0.5)
    stuff = torch.zeros(128, 256, dtype=torch.int16)
    soft = torch.rand(100, 32, 64, dtype=dtype)
    for ratios in ([0.25, 0.25], [0.25, 0.25, 1.0, 1.1]):
        merge_soft_masks(soft, used, stuff, limit, 0.4, ratios, [128, 250])
        for covered in (None, stuff > 0):
            upsampled_argmax(soft, covered, ratios, [128, 250], list(stuff.shape))


if __name__ == "__main__":
    compiled_kernels = only_compile(int(sys.argv[1]))
    with torch.inference_mode():
        for precision in (torch.float32, torch.bfloat16):
            call_all(precision)
    print("\n".join(compiled_kernels))
