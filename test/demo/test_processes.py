"""Children of the demo: events, logs, failures, and their end."""

import queue
import sys
import time

import pytest

from panoptic_ros.demo import processes
from panoptic_ros.demo.processes import Child, DemoError, Event, Processes, ros_environment
from panoptic_ros.system import profile_variable


@pytest.fixture
def start(tmp_path):
    """Start children that run a line of Python."""
    children = []

    def start(code):
        command = [sys.executable, "-c", code]
        child = Child("child", command, {}, tmp_path / "child.log", queue.Queue())
        children.append(child)
        return child

    yield start
    for child in children:
        child.stop()


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_json_lines_are_events_and_the_rest_is_log(start):
    child = start(
        "import sys; from panoptic_ros.demo.processes import say\n"
        "print('hello'); say('frame', stamp=7); print('[1]'); print('bad', file=sys.stderr)"
    )
    wait_for(lambda: child.exit_code == 0)
    child.stop()
    assert child._events.get_nowait() == Event("child", "frame", {"stamp": 7})
    assert child._events.empty()
    assert {"hello", "[1]", "bad"} == {line.strip() for line in child.log_tail().splitlines()}


def test_a_child_is_told_lines(start):
    child = start("print('got', input(), flush=True)")
    child.tell("go")
    wait_for(lambda: "got go" in child.log_tail())


def test_a_child_that_ignores_signals_is_killed(start, monkeypatch):
    monkeypatch.setattr(processes, "STOP_SECONDS", 0.3)
    child = start(
        "import signal, time\n"
        "for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, signal.SIG_IGN)\n"
        "print('deaf', flush=True); time.sleep(60)"
    )
    wait_for(lambda: "deaf" in child.log_tail())
    assert child.stop() == -9


def test_a_failed_child_is_an_error_with_its_log(tmp_path):
    with pytest.raises(DemoError, match=r"the broken ended with exit code 1(.|\n)*No module"):  # noqa: SIM117
        with Processes(tmp_path / "logs") as children:
            children.start("broken", "panoptic_ros.no_such_module")
            while True:
                children.next_event(time.monotonic() + 20, "it")


def test_waiting_is_bounded_and_ends_the_children(tmp_path):
    with pytest.raises(DemoError, match="waited in vain for a miracle"):  # noqa: SIM117
        with Processes(tmp_path / "logs") as children:
            child = children.start("server", "http.server", "0")
            children.next_event(time.monotonic() + 0.5, "a miracle")
    assert child.exit_code is not None


def test_the_environment_keeps_dds_on_this_machine():
    environment = ros_environment()
    assert environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert 1 <= int(environment["ROS_DOMAIN_ID"]) <= processes.MAX_DOMAIN_ID
    assert environment[profile_variable()].endswith("fastdds_large_images.xml")
