"""The network as PyTorch runs it, operation by operation: no compilation, works everywhere."""

from __future__ import annotations

from torch import Tensor

from panoptic_ros.engines.base import Engine


class EagerEngine(Engine):
    """Calls ``forward``."""

    name = "eager"

    def _compile(self, batch: int) -> None:
        """Nothing to do."""

    def _run(self, compiled: None, batch: Tensor) -> dict[str, Tensor]:
        return self.source.network(batch)
