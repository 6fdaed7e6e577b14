"""Labels and table of segments in one operation against the plain form."""

from __future__ import annotations

import pytest
import torch

from panoptic_ros.ops import segments
from panoptic_ros.truth import SegmentMap

pytest.importorskip("triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
THINGS = torch.tensor([7, 9])


def scene(number, shape, seed=0):
    """Random blocks of slots of few classes, some of them empty, with many equal scores."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, number + 1, (8, 8), generator=generator)
    rows, columns = (torch.linspace(0, 7, side).round().long() for side in shape)
    slots = coarse[rows][:, columns].int()
    class_ids = torch.tensor([0, 2, 7, 7, 9])[torch.randint(0, 5, (number,), generator=generator)]
    scores = torch.rand(number, generator=generator).round(decimals=1)
    return SegmentMap(slots, class_ids, scores)


def assert_as_plain(found, limit=0):
    extent = segments._extent_by_counts(found.slots, len(found.class_ids))
    of_slot, table = segments._label(found, THINGS, limit, extent)
    on_gpu = SegmentMap(*(part.to(DEVICE) for part in found[:3]))
    ours, our_table = segments._label_on_cuda(on_gpu, THINGS.to(DEVICE), limit)
    assert torch.equal(ours.cpu(), of_slot)
    shown = table[:, 1] > 0
    torch.testing.assert_close(our_table.cpu()[shown], table[shown], rtol=1e-12, atol=0)
    assert torch.equal(our_table.cpu()[:, :2], table[:, :2])
    return of_slot


@pytest.mark.parametrize("shape", [(1, 1), (9, 7), (16, 33)])
@pytest.mark.parametrize("number", [1, 20, 40])
def test_random_maps(number, shape):
    of_slot = assert_as_plain(scene(number, shape), limit=20)
    assert len(of_slot) == number + 1


def test_rows_of_several_programs():
    slots = torch.zeros(2, 2050, dtype=torch.int32)
    slots[:, 3:1030], slots[1, 1030:] = 1, 2
    found = SegmentMap(slots, torch.tensor([7, 2]), torch.tensor([0.5, 1.0]))
    assert assert_as_plain(found).tolist() == [0, 7 * 256 + 1, 2 * 256]


def test_more_instances_than_fit():
    slots = torch.arange(1, 301, dtype=torch.int32)[None]
    found = SegmentMap(slots, torch.full((300,), 7), torch.linspace(1, 0, 300))
    of_slot = assert_as_plain(found)
    assert (of_slot[256:] == 7 * 256).all() and of_slot[255] == 7 * 256 + 255


def test_no_slots_and_a_limit_on_the_device():
    nothing = SegmentMap(
        torch.zeros(3, 4, dtype=torch.int32), torch.zeros(0, dtype=torch.int64), torch.zeros(0)
    )
    assert_as_plain(nothing)
    found = scene(20, (9, 7))
    on_gpu = SegmentMap(*(part.to(DEVICE) for part in found[:3]))
    limit = torch.tensor(20, device=DEVICE)
    a, b = (segments._label_on_cuda(on_gpu, THINGS.to(DEVICE), n)[0] for n in (limit, 20))
    assert torch.equal(a, b)


def test_the_operation_is_known_to_export():
    from panoptic_ros.ops.segments_triton import label_segments

    slots, class_ids, scores = (part.to(DEVICE) for part in scene(5, (4, 6))[:3])
    limit = torch.tensor(0, device=DEVICE)
    arguments = (slots, class_ids, scores, THINGS.to(DEVICE), limit, 256, 255)
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(label_segments, arguments, test_utils=tests)
