"""Spans on the processes of this machine."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from panoptic_ros.fleet.label import MAX_ATTEMPTS, Labeller, SpanResult
from panoptic_ros.fleet.places import Settings, Span
from panoptic_ros.system import end_with_parent

_CONTEXT = multiprocessing.get_context("spawn")  # CUDA cannot be used after a fork


def run_local(
    spans: Sequence[Span], settings: Settings, workers: int, devices: Sequence[str]
) -> Iterator[SpanResult]:
    """Label spans, beginning with the first; a worker that dies is replaced.

    Args:
        spans: What to do.
        settings: For the workers.
        workers: How many processes.
        devices: The workers take turns with them.

    Raises:
        RuntimeError: The workers die before they can label anything more.
    """
    pool = _Pool(settings, devices)
    waiting, deaths = deque(spans), 0
    try:
        while waiting or pool.busy:
            while waiting and len(pool.busy) < workers:
                pool.give(waiting.popleft())
            for span, result in pool.wait():
                if result is None:
                    deaths += 1
                    # More than the spans in work can have killed before they are given up.
                    if deaths >= MAX_ATTEMPTS * (workers + 1):
                        raise RuntimeError(
                            f"{deaths} workers died one after the other, the last with exit code "
                            f"{pool.exit_code}; is there enough memory for --workers {workers}?"
                        )
                    waiting.appendleft(span)
                    continue
                deaths = 0
                yield result
    finally:
        pool.close()


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    number: int


class _Pool:
    """Processes with a pipe each; ``busy`` are those that have a span."""

    def __init__(self, settings: Settings, devices: Sequence[str]) -> None:
        self._settings, self._devices = settings, devices
        self._idle: list[_Worker] = []
        self.busy: dict[Connection, tuple[_Worker, Span]] = {}
        self.exit_code: int | None = None

    def give(self, span: Span) -> None:
        """Give a span to an idle worker, or to a new one."""
        while self._idle:
            worker = self._idle.pop()
            if self._send(worker, span):
                return
        self._send(self._start(), span)

    def _send(self, worker: _Worker, span: Span) -> bool:
        try:
            worker.connection.send(span)
        except OSError:  # it died while it was idle
            self._end(worker)
            return False
        self.busy[worker.connection] = (worker, span)
        return True

    def _start(self) -> _Worker:
        numbers = {worker.number for worker, _ in self.busy.values()}
        number = min(set(range(len(numbers) + 1)) - numbers)
        device = self._devices[number % len(self._devices)]
        ours, theirs = _CONTEXT.Pipe()
        settings = replace(self._settings, device=device)
        process = _CONTEXT.Process(target=_work, args=(theirs, settings), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours, number)

    def wait(self) -> Iterator[tuple[Span, SpanResult | None]]:
        """Wait until a worker has a result, or has died: then there is none."""
        for connection in wait(list(self.busy)):
            worker, span = self.busy.pop(connection)
            try:
                result = connection.recv()
            except (EOFError, OSError):
                self._end(worker)
                yield span, None
            else:
                self._idle.append(worker)
                yield span, result

    def _end(self, worker: _Worker) -> None:
        worker.connection.close()
        worker.process.join()
        self.exit_code = worker.process.exitcode

    def close(self) -> None:
        """End all workers, those that are busy at once."""
        for worker, _ in self.busy.values():
            worker.process.terminate()
        for worker in [*self._idle, *(worker for worker, _ in self.busy.values())]:
            self._end(worker)


def _work(connection: Connection, settings: Settings) -> None:
    """Label what comes until the other end is closed, which it also is if that process dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is for the one who ends us
    end_with_parent()  # even amid a span, which the next run labels
    labeller = Labeller(settings)
    with suppress(EOFError, OSError):
        while True:
            connection.send(labeller(connection.recv()))
