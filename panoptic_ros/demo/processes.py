"""The processes of the demo: their environment, their logs, the events they tell, their end."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from panoptic_ros.system import large_image_environment, ros_distribution

POLL_SECONDS = 0.2
STOP_SECONDS = 10.0
EVENT_START = '{"event": '
LOG_TAIL = 15  # lines
MAX_DOMAIN_ID = 101  # above it, DDS ports reach into the range of temporary ones


class DemoError(RuntimeError):
    """The demo cannot go on; the message says why and shows the log of the process at fault."""


class Event(NamedTuple):
    """What a process told: its name, the kind of event, its fields."""

    process: str
    kind: str
    fields: dict[str, Any]


def say(event: str, **fields: Any) -> None:
    """Tell the parent process something: one line of JSON on standard output."""
    print(json.dumps({"event": event, **fields}), flush=True)  # begins with EVENT_START


def ros_environment() -> dict[str, str]:
    """Return the environment of ROS processes that talk to each other on this machine alone."""
    environment = {
        **os.environ,
        **large_image_environment(),
        "ROS_DOMAIN_ID": str(os.getpid() % MAX_DOMAIN_ID + 1),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "PYTHONUNBUFFERED": "1",
    }
    if ros_distribution() == "humble":  # does not know the discovery range
        environment["ROS_LOCALHOST_ONLY"] = "1"
    return environment


class Child:
    """One process: JSON lines of its output become events, all the rest goes to its log file."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        events: queue.Queue[Event],
    ) -> None:
        self.name = name
        self.log = log
        self._events = events
        self._interrupted = False
        self._log_file = log.open("w", encoding="utf-8", errors="replace")
        self._process = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log_file,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._process.stdout:
            if line.startswith(EVENT_START):
                fields = json.loads(line)
                self._events.put(Event(self.name, fields.pop("event"), fields))
            else:
                self._log_file.write(line)
                self._log_file.flush()

    def tell(self, line: str) -> None:
        """Write a line to its standard input."""
        with contextlib.suppress(OSError):  # it has just ended: next_event tells that
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    @property
    def exit_code(self) -> int | None:
        """Exit code, None while it runs."""
        return self._process.poll()

    def log_tail(self) -> str:
        """Return the last lines of its log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-LOG_TAIL:])

    def interrupt(self) -> None:
        """Ask it to end, as Ctrl-C would; once, for a second one might cut the end short."""
        if not self._interrupted and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        self._interrupted = True

    def stop(self) -> int:
        """End it, more firmly where it does not listen; returns the exit code."""
        self.interrupt()
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                self._process.wait(STOP_SECONDS)
                break
            except subprocess.TimeoutExpired:
                self._process.send_signal(number)
        self._process.wait()
        self._reader.join(STOP_SECONDS)
        self._log_file.close()
        return self._process.returncode


class Processes:
    """The running children and their events; leaving the ``with`` block ends all children.

    SIGTERM ends the block with SystemExit, at a point where no child can be overlooked.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._environment = ros_environment()
        self._events: queue.Queue[Event] = queue.Queue()
        self._children: list[Child] = []
        self._terminated = False

    def __enter__(self) -> Processes:
        self._logs.mkdir(parents=True, exist_ok=True)
        if threading.current_thread() is threading.main_thread():
            self._previous_handler = signal.signal(signal.SIGTERM, self._on_terminate)
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._children:
            child.interrupt()
        for child in self._children:
            child.stop()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._previous_handler)
        self._exit_if_terminated()

    def _on_terminate(self, *_: object) -> None:
        self._terminated = True

    def _exit_if_terminated(self) -> None:
        if self._terminated:
            sys.exit(128 + signal.SIGTERM)

    def start(self, name: str, module: str, *arguments: str) -> Child:
        """Run a module of this package in a process of its own."""
        command = [sys.executable, "-m", module, *arguments]
        log = self._logs / f"{name}.log"
        child = Child(name, command, self._environment, log, self._events)
        self._children.append(child)
        return child

    def next_event(self, deadline: float, waiting_for: str) -> Event:
        """Return the next event of any child.

        Args:
            deadline: On the clock of ``time.monotonic``.
            waiting_for: What to call it in the error.

        Raises:
            DemoError: The deadline passed, or a child ended.
        """
        while time.monotonic() < deadline:
            self._exit_if_terminated()
            self._check()
            with contextlib.suppress(queue.Empty):
                return self._events.get(timeout=POLL_SECONDS)
        tails = "\n".join(f"last lines of {c.log}:\n{c.log_tail()}" for c in self._children)
        raise DemoError(f"waited in vain for {waiting_for}\n{tails}")

    def _check(self) -> None:
        for child in self._children:
            if child.exit_code is not None:
                raise DemoError(
                    f"the {child.name} ended with exit code {child.exit_code}; last lines of "
                    f"{child.log}:\n{child.log_tail()}"
                )
