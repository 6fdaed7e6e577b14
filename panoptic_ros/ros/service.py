"""What is in force: the parameters, and the model that serves them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from std_msgs.msg import Header

from panoptic_ros.prediction import PanopticPrediction
from panoptic_ros.ros.loading import SegmenterLike
from panoptic_ros.ros.model_service import ModelService
from panoptic_ros.ros.parameters import Parameters
from panoptic_ros.tracking import Tracker

OnResult = Callable[[str, Header, PanopticPrediction], None]  # camera, header, result


@dataclass
class Service:
    """Changed by the executor's thread; others may read, as each part is replaced as a whole.

    Attributes:
        parameters: Those of the node.
        models: Owns the segmenter and loads others.
        listeners: Who wants the results in this process, without DDS.
        trackers: By camera, once ``tracking`` was on. They outlive the model, so that numbers are
            not given again; only the publisher's thread uses them.
    """

    parameters: Parameters
    models: ModelService
    listeners: list[OnResult] = field(default_factory=list)
    trackers: dict[str, Tracker] = field(default_factory=dict)

    @property
    def segmenter(self) -> SegmenterLike | None:
        """The segmenter in service, None while there is none."""
        return self.models.segmenter
