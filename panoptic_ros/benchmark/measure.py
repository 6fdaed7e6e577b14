"""Measure variants and peers in turns: every round runs each of them once.

A machine that is busy for a while then slows all of them down alike, and ratios hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from panoptic_ros.benchmark.machine import describe_machine
from panoptic_ros.benchmark.peers import PeerSubject
from panoptic_ros.benchmark.results import Report, Variant
from panoptic_ros.benchmark.subjects import Subject

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

    Raises:
        ValueError: ``repeat`` is below 1.
    """
    if repeat < 1:
        raise ValueError(f"repeat is {repeat}; expected 1 or more")
    report = Report(describe_machine(malloc))
    device = variants[0].device if variants else "auto"
    ours = _load(variants, lambda variant: Subject(variant, frame), report, say)
    others = _load(peers, lambda peer: PeerSubject(*peer, device), report, say)
    _run_rounds([*ours, *others], repeat, report, say)
    report.measurements += [s.measurement() for s in ours if len(s.seconds)]
    report.peers += [s.peer() for s in others if len(s.seconds)]
    return report


def _load(
    keys: Iterable[_Key], load: Callable[[_Key], _Subject], report: Report, say: Say
) -> list[_Subject]:
    loaded = []
    for key in keys:
        say(f"loading {_name(key)}")
        try:
            loaded.append(load(key))
        except (ValueError, RuntimeError, ImportError, MemoryError) as error:
            _skip(report, _name(key), error, say)
    return loaded


def _run_rounds(subjects: list[Runs], repeat: int, report: Report, say: Say) -> None:
    """Run each subject once per round, each round starting with another of them.

    A round before the first does not count: it is the one that finds caches cold.
    """
    failed: set[int] = set()
    for number in range(repeat + 1):
        say(f"round {number} of {repeat}" if number else "warming up")
        for turn in range(len(subjects)):
            index = (number + turn) % len(subjects)
            if index in failed:
                continue
            try:
                subjects[index].run()
            except (ValueError, RuntimeError, MemoryError) as error:
                failed.add(index)
                subjects[index].seconds.clear()
                _skip(report, str(subjects[index]), error, say)
        if number == 0:
            for subject in subjects:
                subject.seconds.clear()


def _skip(report: Report, name: str, error: Exception, say: Say) -> None:
    reason = f"{error}" or type(error).__name__
    report.skipped.append((name, reason))
    say(f"skipped {name}: {reason}")


def _name(key: object) -> str:
    if isinstance(key, tuple):
        name, (height, width) = key
        return f"{name} {height}x{width}"
    return str(key)
