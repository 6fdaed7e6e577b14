"""Measure variants and peers in turns: every round runs each of them once.

A machine that is busy for a while then slows all of them down alike, and ratios hold.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

from panoptic_ros.benchmark.machine import describe_machine
from panoptic_ros.benchmark.peers import PeerSubject
from panoptic_ros.benchmark.results import Report, Variant, format_size
from panoptic_ros.benchmark.subjects import Subject, warm_engine

Say = Callable[[str], None]
Size = tuple[int, int]


class Runs(Protocol):
    """Something that can be measured once more."""

    seconds: dict[str, list[float]]

    def run(self) -> None:
        """Measure it once."""


_Subject = TypeVar("_Subject", bound=Runs)
_Key = TypeVar("_Key")


def measure(
    variants: Sequence[Variant],
    peers: Sequence[tuple[str, Size]] = (),
    repeat: int = 10,
    frame: Size | None = None,
    malloc: str = "as the environment says",
    say: Say = lambda _: None,
    seconds: float = math.inf,
    checkpoint: Callable[[Report], None] = lambda _: None,
) -> Report:
    """Load everything, measure it in ``repeat`` rounds, and report.

    What cannot be loaded or fails on the way is skipped, with its reason in the report.

    Args:
        variants: What to measure.
        peers: Name (a key of ``peers.PEERS``) and image size of networks to compare with; they
            run where the first variant does.
        repeat: Rounds.
        frame: (height, width) of the images; None for the resolution of each variant.
        malloc: How the process was told to treat freed memory, for the report.
        say: Called with a line about what happens.
        seconds: Time for all of it: two thirds to load, and as many rounds as fit then, at least
            one.
        checkpoint: Called with what there is after every round.

    Raises:
        ValueError: ``repeat`` is below 1.
    """
    if repeat < 1:
        raise ValueError(f"repeat is {repeat}; expected 1 or more")
    report = Report(describe_machine(malloc))
    start = time.monotonic()
    device = variants[0].device if variants else "auto"
    for variant in {v.engine: v for v in variants}.values():
        warm_engine(variant)
    loader = _Loader(report, say, start + seconds * 2 / 3)
    ours = loader.load(variants, lambda variant: Subject(variant, frame))
    others = loader.load(peers, lambda peer: PeerSubject(*peer, device))
    for done in _rounds([*ours, *others], repeat, report, say, start + seconds):
        report.measurements = [s.measurement() for s in ours if s.seconds]
        report.peers = [s.peer() for s in others if s.seconds]
        report.complete = done
        checkpoint(report)
    return report


class _Loader:
    """Loads what can be loaded until a point in time, and reports the rest as skipped."""

    def __init__(self, report: Report, say: Say, deadline: float) -> None:
        self._report, self._say, self._deadline = report, say, deadline

    def load(self, keys: Iterable[_Key], load: Callable[[_Key], _Subject]) -> list[_Subject]:
        loaded = []
        for key in keys:
            self._say(f"loading {_name(key)}")
            try:
                if time.monotonic() > self._deadline:
                    raise RuntimeError("no time left")
                loaded.append(load(key))
            except (ValueError, RuntimeError, ImportError, MemoryError) as error:
                _skip(self._report, _name(key), error, self._say)
        return loaded


def _rounds(
    subjects: list[Runs], repeat: int, report: Report, say: Say, deadline: float
) -> Iterator[bool]:
    """Run each subject once per round, each round starting with another of them.

    A round before the first does not count: it is the one that finds caches cold.

    Yields:
        After every round that counts, whether it was the last.
    """
    failed: set[int] = set()
    for number in range(repeat + 1):
        if len(failed) == len(subjects):
            yield True  # nothing is left to measure
            return
        say(f"round {number} of {repeat}" if number else "warming up")
        start = time.monotonic()
        for turn in range(len(subjects)):
            index = (number + turn) % len(subjects)
            if index in failed:
                continue
            try:
                subjects[index].run()
            except (ValueError, RuntimeError, MemoryError) as error:
                failed.add(index)
                _skip(report, str(subjects[index]), error, say)
        for index, subject in enumerate(subjects):
            if number == 0 or index in failed:
                subject.seconds.clear()
        now = time.monotonic()
        late = now + (now - start) > deadline
        if number:
            yield number == repeat or late
            if late:
                return


def _skip(report: Report, name: str, error: Exception, say: Say) -> None:
    reason = f"{error}" or type(error).__name__
    report.skipped.append((name, reason))
    say(f"skipped {name}: {reason}")


def _name(key: object) -> str:
    if isinstance(key, tuple):
        name, size = key
        return f"{name} {format_size(size)}"
    return str(key)
