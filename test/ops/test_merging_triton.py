"""The merge of all masks at once against the walk over one after the other."""

from __future__ import annotations

import pytest
import torch

from panoptic_ros.ops import merging
from panoptic_ros.ops.masks import EnlargedMasks
from panoptic_ros.ops.upsampling import Step

triton_form = pytest.importorskip("panoptic_ros.ops.merging_triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ONE_STEP = [Step((4.0, 4.0), (21, 37))]
TWO_STEPS = [Step((4.0, 4.0), (21, 37)), Step.to((17, 41), (21, 37))]


def patches(number, seed=0, size=(6, 10)):
    """Soft masks that are high in a patch, many of which overlap; some are nowhere high."""
    generator = torch.Generator().manual_seed(seed)
    soft = torch.rand(number, *size, generator=generator).sqrt()
    for mask in soft:
        y, x = torch.randint(0, 4, (2,), generator=generator).tolist()
        inside = torch.zeros(size)
        inside[y : y + 3, x + 1 : x + 6] = 1
        mask *= inside
    soft[::7] = 0.2
    return soft


def assert_as_plain(soft, steps, overlap_threshold=0.5, used=None):
    masks = EnlargedMasks([soft], 0.5, steps)
    size = steps[-1].size
    stuff = torch.randint(0, 4, size, generator=torch.Generator().manual_seed(1))
    unions = torch.zeros(2, *size, dtype=torch.bool)
    plain = merging._merge_one_by_one(masks, stuff, overlap_threshold, used, unions[0])
    on_gpu = EnlargedMasks([part.to(DEVICE) for part in soft.split(7)], 0.5, steps)
    union = unions[1].to(DEVICE)
    used = used if used is None else used.to(DEVICE)
    ours = merging._merge_on_cuda(on_gpu, stuff.to(DEVICE), overlap_threshold, used, union)
    assert torch.equal(ours.cpu(), plain)
    assert torch.equal(union.cpu(), unions[0])
    return plain


@pytest.mark.parametrize("steps", [ONE_STEP, TWO_STEPS])
@pytest.mark.parametrize("number", [1, 20])
def test_random_masks(number, steps):
    soft = patches(number + 1)[1:]
    used = torch.arange(number) % 5 != 3
    slots = assert_as_plain(soft, steps, used=used)
    assert (slots == 1).any()
    assert number == 1 or len(slots.unique()) > 7


@pytest.mark.parametrize("overlap_threshold", [0.0, 1.0])
def test_limits(overlap_threshold):
    slots = assert_as_plain(patches(9), ONE_STEP, overlap_threshold)
    assert slots.max() > 9  # stuff


def test_no_masks_and_masks_that_are_empty():
    assert_as_plain(torch.zeros(0, 6, 10), ONE_STEP)
    assert_as_plain(torch.zeros(3, 6, 10), ONE_STEP)


@pytest.mark.parametrize("rounds", [1, 16])
def test_a_chain_in_which_every_mask_decides_on_the_next(rounds, monkeypatch):
    """Each covers most of the next, so that every second one stays, which rounds find slowly."""
    monkeypatch.setattr(triton_form, "_ROUNDS", rounds)
    soft = torch.zeros(10, 4, 40)
    for index, mask in enumerate(soft):
        mask[:, 3 * index : 3 * index + 8] = 1
    slots = assert_as_plain(soft, [Step((1.0, 1.0), (4, 40))])
    assert slots[(slots > 0) & (slots <= 10)].unique().tolist() == [1, 3, 5, 7, 9]


def test_half_precision_and_a_threshold_on_the_device():
    soft = patches(8, seed=3).half()
    limit = torch.tensor(0.5, device=DEVICE)
    masks = EnlargedMasks([soft.to(DEVICE)], 0.5, ONE_STEP)
    stuff = torch.zeros(21, 37, dtype=torch.int16, device=DEVICE)
    merged = merging._merge_on_cuda(masks, stuff, limit)
    plain = merging._merge_one_by_one(
        EnlargedMasks([soft.float()], 0.5, ONE_STEP), stuff.cpu(), 0.5
    )
    assert torch.equal(merged.cpu(), plain)


def test_the_operation_is_known_to_export():
    soft, stuff = patches(2).to(DEVICE), torch.zeros(24, 40, dtype=torch.int32, device=DEVICE)
    used = torch.tensor([True, True], device=DEVICE)
    limit = torch.tensor(0.5, device=DEVICE)
    arguments = (soft, used, stuff, limit, 0.5, [0.25, 0.25], [24, 40])
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(triton_form.merge_soft_masks, arguments, test_utils=tests)
