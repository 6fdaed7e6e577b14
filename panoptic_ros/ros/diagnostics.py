"""The node's state as diagnostic_msgs: one status for the model, one for each camera."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from panoptic_ros.ros.depth_input import DepthInput
from panoptic_ros.ros.frame_statistics import CameraStatistics, percentiles
from panoptic_ros.ros.inputs import CameraInput
from panoptic_ros.ros.loading import memory_in_use
from panoptic_ros.ros.model_service import ModelService
from panoptic_ros.ros.pipeline import Pipeline

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
RECENT = 5.0  # seconds that a problem which is over still shows as a warning


class Errors:
    """What went wrong.

    Attributes:
        last: The latest error, which may be over.
        persistent: Why the node cannot work now; empty when it can.
    """

    def __init__(self) -> None:
        self.last = ""
        self.persistent = ""
        self._noted_at = float("-inf")

    def note(self, text: str) -> None:
        """Remember an error."""
        self.last, self._noted_at = text, time.monotonic()

    def is_recent(self) -> bool:
        """Tell whether the last error is news."""
        return time.monotonic() - self._noted_at < RECENT


def model_status(
    name: str, state: str, models: ModelService, pipeline: Pipeline | None, errors: Errors
) -> DiagnosticStatus:
    """Describe the node in a lifecycle state, its model and how long its stages take."""
    level, message = OK, f"{state}, loading {models.loading}" if models.loading else state
    if failure := errors.persistent or (pipeline.failure if pipeline else ""):
        level, message = ERROR, failure
    elif errors.is_recent():
        level, message = WARN, errors.last
    values: dict[str, object] = {
        "state": state,
        "loading": models.loading,
        "last error": errors.last,
    }
    hardware = ""
    if segmenter := models.segmenter:
        hardware = str(segmenter.device)
        values |= {
            "model": segmenter.name,
            "resolution": "{}x{}".format(*segmenter.resolution),
            "device": hardware,
            "precision": segmenter.precision,
            "engine": segmenter.engine,
            "memory": memory_in_use(segmenter.device),
        }
    if pipeline:
        for stage, seconds in pipeline.stages.latest().items():
            values |= _spans(stage, seconds)
    return _status(level, name, message, hardware, values)


def camera_status(
    name: str, input_: CameraInput, statistics: CameraStatistics
) -> DiagnosticStatus:
    """Describe what became of the images of one camera."""
    rate, published = statistics.rate("received"), statistics.rate("published")
    level, message = OK, f"{rate:.1f} Hz in, {published:.1f} Hz out"
    if input_.waits_for_listener:
        message = "waiting for a subscriber: nobody listens to an output"
    elif input_.problem:
        level, message = WARN, input_.problem
    elif statistics.seconds_since("refused") < RECENT:
        level, message = WARN, f"refused an image: {statistics.refusal}"
    values: dict[str, object] = {
        "topic": input_.topic,
        "publishers": input_.publishers(),
        "reliability": input_.reliability.name.lower() if input_.reliability else "",
        "input rate (Hz)": f"{rate:.2f}",
        "output rate (Hz)": f"{published:.2f}",
        **statistics.counts(),
        "last refusal": statistics.refusal,
    }
    if input_.depth:
        values |= _depth_values(input_.depth)
        if input_.depth.problem and level == OK:
            level, message = WARN, input_.depth.problem
    values |= _spans("age", statistics.ages())
    return _status(level, name, message, input_.topic, values)


def _depth_values(depth: DepthInput) -> dict[str, object]:
    """Describe what became of the depth images, and of the images that needed one."""
    frames = depth.frames
    return {
        "depth topic": depth.topic,
        "depth received": frames.received,
        "depth used": frames.used,
        "depth missing": frames.missing,
        "depth refused": frames.refused,
        "last depth refusal": frames.refusal,
    }


def _status(
    level: bytes, name: str, message: str, hardware: str, values: Mapping[str, object]
) -> DiagnosticStatus:
    return DiagnosticStatus(
        level=level,
        name=name,
        message=message,
        hardware_id=hardware,
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )


def _spans(what: str, seconds: Sequence[float]) -> dict[str, str]:
    return {f"{what} {p} (ms)": f"{s * 1e3:.1f}" for p, s in percentiles(seconds).items()}
