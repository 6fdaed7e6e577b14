"""Spans on a Ray cluster, by Ray Data: its blocks are spans, its actors hold the model.

Bags and output are on a disk that all nodes see. What travels through Ray is which span to label,
and what became of it; so back-pressure, retries after lost actors and nodes, and growing with the
cluster are Ray's own.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

from panoptic_ros.fleet.label import Labeller, SpanResult
from panoptic_ros.fleet.places import Settings, Span


def run_ray(
    spans: Sequence[Span], settings: Settings, workers: int, address: str
) -> Iterator[SpanResult]:
    """Label spans on the actors of a cluster.

    Args:
        spans: What to do.
        settings: For the workers; device ``auto`` is a GPU of its own for each, if there are any.
        workers: How many actors at most; 0 for as many as the cluster has GPUs, else cores.
        address: Of the cluster, or ``auto``.

    Raises:
        ValueError: Ray is not installed.
        OSError: There is no cluster at the address.
        RuntimeError: Ray gave up.
    """
    try:
        import ray
        from ray.data import ActorPoolStrategy, DataContext
    except ImportError as error:
        raise ValueError("--ray needs Ray: pip install 'panoptic_ros[fleet]'") from error
    ours = not ray.is_initialized()
    if ours:
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except ConnectionError as error:
            raise OSError(f"there is no Ray cluster at {address}: {error}") from error
    try:
        DataContext.get_current().enable_progress_bars = False
        resources = ray.cluster_resources()
        on_gpu = settings.device.startswith("cuda") or (
            settings.device == "auto" and resources.get("GPU", 0) >= 1
        )
        actors = workers or max(1, int(resources.get("GPU" if on_gpu else "CPU", 1)))
        actors = min(actors, len(spans))
        settings = replace(settings, device="cuda" if on_gpu else "cpu", threads=1)
        rows = [{"span": asdict(span)} for span in spans]
        results = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _Actor,
            fn_constructor_args=(settings,),
            compute=ActorPoolStrategy(min_size=1, max_size=actors, initial_size=actors),
            batch_size=1,
            num_cpus=1,
            num_gpus=1 if on_gpu else 0,
        )
        for row in results.iter_rows():
            yield SpanResult(**row)
    except ray.exceptions.RayError as error:
        raise RuntimeError(f"Ray gave up: {error}") from error
    finally:
        if ours:
            ray.shutdown()


class _Actor:
    """Holds the model."""

    def __init__(self, settings: Settings) -> None:
        self._labeller = Labeller(settings)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        spans = [Span(**{**span, "topics": tuple(span["topics"])}) for span in batch["span"]]
        rows = [asdict(self._labeller(span)) for span in spans]
        return {key: [row[key] for row in rows] for key in rows[0]}
