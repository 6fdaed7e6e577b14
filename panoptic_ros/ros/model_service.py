"""The segmenter in service, and the one that loads beside it to take over."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from panoptic_ros.prediction import find_categories
from panoptic_ros.ros.loading import (
    Check,
    Load,
    SegmenterLike,
    free_device_memory,
    with_thresholds,
)
from panoptic_ros.ros.parameters import Applies, Parameters


class LoadError(RuntimeError):
    """A segmenter could not be loaded in the background.

    Attributes:
        serving: The parameters of the segmenter that stays in service.
    """

    def __init__(self, text: str, serving: Parameters) -> None:
        super().__init__(text)
        self.serving = serving


class ModelService:
    """Owns the segmenter in service. All methods belong to one thread, the executor's.

    Args:
        load: Makes the segmenter that parameters describe; may take long and may raise.
        check: Makes the quick checks before that; raises ValueError or RuntimeError.
        notify: Called in another thread when ``finish`` has something to do.

    Attributes:
        segmenter: In service, None before ``load_now``. Other threads may read it: it is replaced
            as a whole.
    """

    def __init__(self, load: Load, check: Check, notify: Callable[[], None]) -> None:
        self._load = load
        self._check = check
        self._notify = notify
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader")
        self._serving: Parameters | None = None
        self._own_options = None
        self._request: Parameters | None = None
        self._future: Future[SegmenterLike] | None = None
        self.segmenter: SegmenterLike | None = None

    @property
    def loading(self) -> str:
        """Name of the model that is being loaded, or empty."""
        return self._request.model if self._request else ""

    def load_now(self, parameters: Parameters) -> None:
        """Load a segmenter and put it in service; raises what ``load`` raises."""
        self._take_over(parameters, parameters, self._load_whole(parameters))

    def check(self, parameters: Parameters) -> None:
        """Check quickly whether ``follow`` can work; raises ValueError or RuntimeError if not."""
        if self.segmenter and parameters.differs(self._serving, Applies.RELOAD):
            self._check(parameters)

    def follow(self, parameters: Parameters) -> bool:
        """Apply thresholds at once; start loading if another segmenter is needed.

        A request replaces the one before it.

        Returns:
            Whether loading has started.
        """
        if not self.segmenter:
            return False
        self.segmenter.options = with_thresholds(self._own_options, parameters)
        if not parameters.differs(self._request or self._serving, Applies.RELOAD):
            return False
        self._cancel()
        if not parameters.differs(self._serving, Applies.RELOAD):
            return False  # back to the one in service
        self._request = parameters
        self._future = self._thread.submit(self._load_whole, parameters)
        self._future.add_done_callback(lambda _: self._notify())
        return True

    def finish(self, parameters: Parameters) -> bool:
        """Put a segmenter that has been loaded in service, with the thresholds of ``parameters``.

        Returns:
            Whether there was one.

        Raises:
            LoadError: It could not be loaded; the one in service stays.
        """
        if self._future is None or not self._future.done():
            return False
        request, future = self._request, self._future
        self._request = self._future = None
        if error := future.exception():
            raise LoadError(
                f"could not load model {request.model}: {reason(error)}; "
                f"{self.segmenter.name} stays in service",
                self._serving,
            )
        self._take_over(request, parameters, future.result())
        free_device_memory()
        return True

    def _load_whole(self, parameters: Parameters) -> SegmenterLike:
        """Load a segmenter; raises ValueError if it lacks classes that the parameters name."""
        segmenter = self._load(parameters)
        try:
            find_categories(segmenter.categories, parameters.classes_in_mask)
        except ValueError as error:
            raise ValueError(f"mask_classes: {error}") from None
        return segmenter

    def drop(self) -> None:
        """Take the segmenter out of service and free its device."""
        self._cancel()
        self.segmenter = self._serving = self._own_options = None
        free_device_memory()

    def close(self) -> None:
        """Wait for what is being loaded, which cannot be interrupted, and end the thread."""
        self._cancel()
        self._thread.shutdown(wait=True)

    def _take_over(
        self, serving: Parameters, parameters: Parameters, segmenter: SegmenterLike
    ) -> None:
        self._own_options = segmenter.options
        segmenter.options = with_thresholds(self._own_options, parameters)
        self._serving = serving
        self.segmenter = segmenter

    def _cancel(self) -> None:
        """Forget the request; a segmenter that is being loaded is dropped when it is done."""
        if self._future:
            self._future.cancel()
        self._request = self._future = None


def reason(error: BaseException) -> str:
    """Return what an error says, with its type unless it is one that explains itself."""
    if isinstance(error, (ValueError, RuntimeError)) and str(error):
        return str(error)
    return f"{type(error).__name__}: {error}"
