"""The scores by which the best weights of a run are chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from panoptic_ros.evaluation.evaluate import dataset_truth, evaluate
from panoptic_ros.model_zoo import ModelConfig
from panoptic_ros.networks.base import PanopticNetwork
from panoptic_ros.segmenter import Segmenter
from panoptic_ros.training.batches import open_data
from panoptic_ros.training.recipe import DataSource

# Takes the network over; returns scores, of which "pq" counts.
Validation = Callable[[PanopticNetwork], Mapping[str, float]]


def validation(source: DataSource, config: ModelConfig, device: str) -> Validation:
    """Return the evaluation on a data set, through the door that users take.

    Its scores are ``pq``, ``pq_things``, ``pq_stuff`` and ``miou``, fractions.

    Raises:
        RecipeError: The data set does not fit.
    """
    data = open_data(source, config.categories)

    def score(network: PanopticNetwork) -> dict[str, float]:
        segmenter = Segmenter(config, network, device, engine="eager")
        truth = dataset_truth(data)
        metrics = evaluate(segmenter, truth, config.categories, len(data), progress=False).metrics
        return {
            "pq": metrics["All"]["pq"],
            "pq_things": metrics["Things"]["pq"],
            "pq_stuff": metrics["Stuff"]["pq"],
            "miou": metrics["miou"],
        }

    return score
