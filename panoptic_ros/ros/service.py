"""What is in force: the parameters, and the model that serves them."""

from __future__ import annotations

from dataclasses import dataclass

from panoptic_ros.ros.loading import SegmenterLike
from panoptic_ros.ros.model_service import ModelService
from panoptic_ros.ros.parameters import Parameters


@dataclass
class Service:
    """Changed by the executor's thread; others may read, as each part is replaced as a whole.

    Attributes:
        parameters: Those of the node.
        models: Owns the segmenter and loads others.
    """

    parameters: Parameters
    models: ModelService

    @property
    def segmenter(self) -> SegmenterLike | None:
        """The segmenter in service, None while there is none."""
        return self.models.segmenter
