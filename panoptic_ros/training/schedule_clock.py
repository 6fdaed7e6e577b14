"""How far a stage is: by its steps, or by the time that it may take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ScheduleClock:
    """Places the steps of a stage on its schedule.

    Attributes:
        iterations: Of the stage as the recipe has it.
        begin: Seconds of work on the run after which the stage begins.
        end: And ends; None: it ends after its iterations.
    """

    iterations: int
    begin: float = 0.0
    end: float | None = None

    @classmethod
    def of(
        cls, iterations: Sequence[int], stage: int, minutes: float | None = None
    ) -> ScheduleClock:
        """Share ``minutes`` among the stages by their iterations.

        Args:
            iterations: Of all stages.
            stage: Whose clock to make.
            minutes: Of the whole run; None counts steps.

        Raises:
            ValueError: Not a positive time.
        """
        if minutes is None:
            return cls(iterations[stage])
        if not minutes > 0:
            raise ValueError(f"minutes is {minutes}; expected more than 0")
        second = 60 * minutes / sum(iterations)
        begin = second * sum(iterations[:stage])
        return cls(iterations[stage], begin, begin + second * iterations[stage])

    def place(self, step: int, seconds: float) -> float:
        """Return where on the schedule a step is, 0..iterations.

        Args:
            step: Steps of the stage before it.
            seconds: Of work on the run before it.
        """
        if self.end is None:
            return step
        part = (seconds - self.begin) / (self.end - self.begin)
        return self.iterations * min(max(part, 0.0), 1.0)

    def is_over(self, step: int, seconds: float) -> bool:
        """Return whether the stage is at its end after so many steps and seconds."""
        return step >= self.iterations if self.end is None else seconds >= self.end
