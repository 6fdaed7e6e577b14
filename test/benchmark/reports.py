"""Reports with numbers that are easy to reckon with."""

from __future__ import annotations

from panoptic_ros.benchmark.results import (
    BARE,
    PANOPTIC_HEAD,
    PIPELINE,
    STAGES,
    TOTAL,
    Measurement,
    Peer,
    Report,
    Variant,
)

MACHINE = {
    "date": "2026-01-02 03:04 UTC",
    "processor": "an abacus",
    "cores": 2,
    "threads": 1,
    "load": [0.5, 0.5, 0.5],
    "malloc": "as it likes",
    "python": "3.11",
    "panoptic_ros": "0.1.0",
    "versions": {"torch": "2.12.1"},
}


def measurement(
    model="fpsnet_cityscapes",
    size=(512, 1024),
    batch=1,
    instances=None,
    forward=0.1,
    predict=0.02,
    head=None,
    found=3,
    memory=(100, 50),
    rounds=3,
    run="",
):
    """Every stage but forward and predict takes a millisecond; all rounds are alike."""
    stages = dict.fromkeys(STAGES, 0.001) | {"forward": forward, "predict": predict}
    pipeline = sum(stages[s] for s in ("upload", "preprocess", "forward", "predict", "download"))
    spans = {**stages, PIPELINE: pipeline, TOTAL: sum(stages.values())}
    if instances is None:
        spans[BARE] = forward
    if head is not None:
        spans[PANOPTIC_HEAD] = head
    return Measurement(
        variant=Variant(model, size, batch, "auto", instances=instances),
        seconds={name: [seconds] * rounds for name, seconds in spans.items()},
        precision="bf16",
        engine="openvino",
        random_weights=True,
        found=found,
        slots=-1 if instances is None else found,
        frame=size,
        held_bytes=memory[0],
        peak_bytes=memory[1],
        run=run,
    )


def peer(name="a peer", size=(512, 1024), total=0.5, rounds=3, run=""):
    seconds = {"preprocess": 0.0, "forward": total, "postprocess": 0.0, "total": total}
    spans = {stage: [value] * rounds for stage, value in seconds.items()}
    return Peer(name, size, spans, 20, "as it comes", run)


def report(*measurements, peers=(), skipped=()):
    return Report(dict(MACHINE), list(measurements), list(peers), list(skipped), True)
