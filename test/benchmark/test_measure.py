"""Real measurements: of a small model, of memory, of what cannot be measured."""

import sys
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from panoptic_ros.benchmark import measure as module
from panoptic_ros.benchmark.measure import measure
from panoptic_ros.benchmark.memory import CLEAR, held_memory, peak_memory
from panoptic_ros.benchmark.message_edge import message_edge
from panoptic_ros.benchmark.peers import PEERS, limit_detections
from panoptic_ros.benchmark.results import (
    BARE,
    PANOPTIC_HEAD,
    PIPELINE,
    TOTAL,
    Report,
    Variant,
)
from panoptic_ros.segmenter import Segmenter

CPU = torch.device("cpu")
SEGMENTER_STAGES = {"upload", "preprocess", "forward", "predict", "download"}


@pytest.fixture(scope="module")
def measured(tiny_model):
    model = str(tiny_model)
    variants = [
        Variant(model, (64, 128), engine="eager", device="cpu", precision="fp32"),
        Variant(model, (64, 128), 2, "eager", "fp32", "cpu"),
        Variant(model, (64, 128), 1, "eager", "fp32", "cpu", instances=5),
        Variant("no such model", engine="eager"),
    ]
    seen = []
    report = measure(variants, [("nobody", (64, 128))], 2, (90, 160), checkpoint=seen.append)
    return report, len(seen)


def test_every_span_of_every_round(measured):
    report, checkpoints = measured
    one, two, planted = report.measurements
    assert checkpoints == 2 and report.complete
    has_ros = message_edge([np.zeros((2, 2, 3), np.uint8)]) is not None
    stages = SEGMENTER_STAGES | ({"convert", "publish"} if has_ros else set())
    assert set(one.seconds) == stages | {PIPELINE, TOTAL, BARE, PANOPTIC_HEAD}
    assert set(planted.seconds) == stages | {PIPELINE, TOTAL}
    for m in report.measurements:
        assert {len(samples) for samples in m.seconds.values()} == {2}
        for index in range(2):
            inner = sum(m.seconds[stage][index] for stage in SEGMENTER_STAGES)
            assert inner <= m.seconds[PIPELINE][index] <= m.seconds[TOTAL][index]
        assert (m.frame, m.variant.resolution) == ((90, 160), (64, 128))
        assert (m.engine, m.precision) == ("eager", "fp32")
    assert two.variant.batch == 2 and planted.slots == 5 and one.slots == -1
    assert not one.random_weights


def test_what_cannot_be_measured_is_skipped_with_its_reason(measured):
    reasons = dict(measured[0].skipped)
    assert "fpsnet_cityscapes" in reasons["no such model own size batch 1 eager auto"]
    assert "no peer 'nobody'" in reasons["nobody 64x128"]


def test_planted_instances_are_those_of_the_label_image():
    variant = Variant("panonet_small", (64, 128), 1, "eager", "fp32", "cpu", instances=6)
    (planted,) = measure([variant], repeat=1).measurements
    assert (planted.found, planted.slots) == (6, 6)


@dataclass
class Counter:
    """A subject that fails in some round."""

    log: list
    name: str
    fails_at: int = -1
    seconds: dict = field(default_factory=dict)

    def run(self):
        self.log.append(self.name)
        if self.log.count(self.name) - 1 == self.fails_at:
            raise RuntimeError("broken")
        self.seconds.setdefault("total", []).append(1.0)

    def __str__(self):
        return self.name


def test_rounds_take_turns_and_go_on_without_what_fails():
    log, report = [], Report({})
    subjects = [Counter(log, "a"), Counter(log, "b", fails_at=2), Counter(log, "c")]
    ends = list(module._rounds(subjects, 3, report, lambda _: None, float("inf")))
    assert ends == [False, False, True]
    assert "".join(log) == "abc" + "bca" + "cab" + "ac"
    assert [len(s.seconds.get("total", ())) for s in subjects] == [3, 0, 3]
    assert report.skipped == [("b", "broken")]


def test_rounds_end_in_time_but_not_before_the_first():
    log = []
    rounds = module._rounds([Counter(log, "a")], 9, Report({}), lambda _: None, 0.0)
    assert list(rounds) == [True]
    assert len(log) == 2  # one to warm up


def test_no_time_to_load():
    report = measure([Variant("fpsnet_small", engine="nobody's")], repeat=1, seconds=0.0)
    assert [reason for _, reason in report.skipped] == ["no time left"]
    with pytest.raises(ValueError, match="repeat is 0"):
        measure([], repeat=0)


@pytest.mark.skipif(not CLEAR.exists(), reason="needs /proc of Linux")
def test_memory_of_a_call():
    megabytes = 48
    kept = []
    before = held_memory(CPU)
    peak = peak_memory(lambda: torch.ones(megabytes << 18), CPU)
    assert megabytes - 8 <= peak / 2**20 <= megabytes + 16
    kept.append(torch.ones(megabytes << 18))
    assert megabytes - 16 <= (held_memory(CPU) - before) / 2**20 <= megabytes + 16


def test_both_ends_of_messages(tiny_model):
    pytest.importorskip("sensor_msgs")
    images = [np.random.default_rng(i).integers(0, 255, (30, 40, 3), np.uint8) for i in range(2)]
    edge = message_edge(images)
    for image, converted in zip(images, edge.convert(), strict=True):
        np.testing.assert_array_equal(converted, image)
    predictions = Segmenter.load(tiny_model, "cpu", "fp32", engine="eager")(images)
    labels, instances, *_ = edge.publish(predictions, "tiny")
    assert labels.encoding == "16UC1" and labels.header.frame_id == "camera"
    assert labels.data.tobytes() == predictions[0].labels.tobytes()
    assert [i.id for i in instances.instances] == [s.id for s in predictions[0].instances]


def test_peers_that_are_not_installed_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    names = [name for name in PEERS if name.startswith("transformers")]
    report = measure([], [(name, (64, 128)) for name in names], 1)
    assert len(names) == 2 and not report.peers
    assert [name for name, _ in report.skipped] == [f"{name} 64x128" for name in names]
    assert all("pip install transformers" in reason for _, reason in report.skipped)


def test_mask_rcnn_finds_as_many_as_a_street_holds():
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    torch.manual_seed(0)
    model = maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=5, min_size=64, max_size=64,
        rpn_post_nms_top_n_test=40, box_detections_per_img=8,
    ).eval()  # fmt: skip
    images = [torch.rand(3, 64, 64)]
    with torch.inference_mode():
        threshold = limit_detections(model, images, 8)
        assert len(model(images)[0]["boxes"]) == 8
    assert 0 < threshold < 1 and model.roi_heads.score_thresh == threshold


def test_no_round_is_made_when_nothing_could_be_loaded():
    said = []
    report = measure([Variant(model="nonsense", engine="eager")], repeat=3, say=said.append)
    assert report.complete and not report.measurements
    ((_, reason),) = report.skipped
    assert "no model 'nonsense'" in reason
    assert not [line for line in said if line.startswith(("round", "warming"))]
