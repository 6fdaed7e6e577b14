"""The policy of the worker: newest wins, nobody waits for a silent camera."""

from __future__ import annotations

import threading

import pytest

from panoptic_ros.ros.frame_statistics import CameraStatistics, Rate, StageTimes, percentiles
from panoptic_ros.ros.worker import Frame, RateLimit, SingleTaskThread, Worker

PATIENCE = 10.0  # seconds


def frame(camera: str, number: int) -> Frame:
    return Frame(camera, number, float(number))


class Gate:
    """A ``process`` that stands still until it is told to go on."""

    def __init__(self):
        self.batches = []
        self._entered = threading.Semaphore(0)
        self._go_on = threading.Semaphore(0)

    def __call__(self, frames):
        self.batches.append([(f.camera, f.message) for f in frames])
        self._entered.release()
        assert self._go_on.acquire(timeout=PATIENCE)
        if frames[0].message == "raise":
            raise ValueError("no good")

    def wait_until_entered(self):
        assert self._entered.acquire(timeout=PATIENCE)

    def go_on(self):
        self._go_on.release()


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def worker(gate):
    errors = []
    worker = Worker(gate, lambda frames, trace: errors.append(trace))
    worker.errors = errors
    worker.start()
    yield worker
    for _ in range(10):
        gate.go_on()
    worker.stop()


def test_newest_frame_wins(worker, gate):
    assert worker.offer(frame("front", 1)) is None
    gate.wait_until_entered()
    assert worker.offer(frame("front", 2)) is None
    assert worker.offer(frame("front", 3)).message == 2
    assert worker.offer(frame("front", 4)).message == 3
    gate.go_on()
    gate.wait_until_entered()
    assert gate.batches == [[("front", 1)], [("front", 4)]]


def test_one_batch_over_the_cameras_that_have_a_frame(worker, gate):
    worker.offer(frame("front", 1))
    gate.wait_until_entered()  # left and rear are silent and hold nobody up
    worker.offer(frame("left", 2))
    worker.offer(frame("front", 3))
    assert worker.offer(frame("left", 4)).message == 2  # a camera replaces only its own
    gate.go_on()
    gate.wait_until_entered()
    assert gate.batches[1] == [("front", 3), ("left", 4)]


def test_goes_on_after_an_exception(worker, gate):
    worker.offer(Frame("front", "raise", 0.0))
    gate.wait_until_entered()
    gate.go_on()
    worker.offer(frame("front", 2))
    gate.wait_until_entered()
    assert "no good" in worker.errors[0] and "Traceback" in worker.errors[0]
    assert gate.batches[-1] == [("front", 2)]


def test_stop_ends_the_batch_and_returns_the_rest(worker, gate):
    worker.offer(frame("front", 1))
    gate.wait_until_entered()
    worker.offer(frame("front", 2))
    gate.go_on()
    # Either the thread took the second frame before it saw the end, or it is handed back.
    gate.go_on()
    left = worker.stop()
    assert [f.message for f in left] == ([2] if len(gate.batches) == 1 else [])


def test_clear_hands_the_waiting_frames_back(worker, gate):
    worker.offer(frame("front", 1))
    gate.wait_until_entered()
    worker.offer(frame("front", 2))
    worker.offer(frame("left", 3))
    assert [f.message for f in worker.clear()] == [2, 3]
    assert worker.clear() == []


@pytest.fixture
def helper():
    errors = []
    helper = SingleTaskThread("helper", errors.append)
    helper.errors = errors
    yield helper
    helper.stop()


def test_helper_works_beside_who_asks_it_but_never_more_than_one_piece(helper):
    done, started = [], threading.Semaphore(0)
    gates = [threading.Event() for _ in range(3)]

    def work(number):
        started.release()
        assert gates[number].wait(PATIENCE)
        done.append((number, threading.current_thread().name))

    def ask_for_all():
        for number in range(3):
            helper.do(lambda number=number: work(number))

    asking = threading.Thread(target=ask_for_all)
    asking.start()
    for number in range(3):
        assert started.acquire(timeout=PATIENCE)  # this piece is under way,
        assert not started.acquire(timeout=0.05)  # the next is not,
        assert asking.is_alive() or number == 2  # and who asks for the next waits.
        gates[number].set()
    asking.join(PATIENCE)
    assert not asking.is_alive()
    helper.stop()  # waits for the last piece
    assert [number for number, _ in done] == [0, 1, 2]
    assert len({thread for _, thread in done}) == 1 and "helper" in done[0][1]


def test_helper_goes_on_after_an_exception(helper):
    done = []

    def fail():
        raise ValueError("no good")

    helper.do(fail)
    helper.do(lambda: done.append(1))
    helper.stop()
    assert done == [1]
    (error,) = helper.errors
    assert "no good" in error and "Traceback" in error


def admitted(stamps, max_rate, limit=None):
    limit = limit or RateLimit()
    return [stamp for stamp in stamps if limit.admits(stamp, max_rate)]


def test_no_limit_admits_all():
    assert admitted([5.0, 5.0, 4.0, 6.0], max_rate=0) == [5.0, 5.0, 4.0, 6.0]


@pytest.mark.parametrize("jitter", [0.0, 0.004, -0.004])
def test_rate_is_kept_on_average(jitter):
    stamps = [1e9 + n / 30 + jitter * (n % 2) for n in range(300)]
    assert len(admitted(stamps, max_rate=10)) == pytest.approx(100, abs=2)
    assert len(admitted(stamps, max_rate=25)) == pytest.approx(250, abs=3)
    assert len(admitted(stamps, max_rate=60)) == 300


def test_backward_jump_starts_afresh():
    limit = RateLimit()
    first = admitted([100 + n / 10 for n in range(20)], 2, limit)
    assert first == pytest.approx([100, 100.5, 101, 101.5])
    again = admitted([50 + n / 10 for n in range(20)], 2, limit)
    assert again == pytest.approx([50, 50.5, 51, 51.5])


def test_a_higher_limit_holds_at_once():
    limit = RateLimit()
    assert admitted([0.0, 1.0], 0.1, limit) == [0.0]
    assert admitted([2.0, 2.1, 2.5, 3.0], 2, limit) == [2.0, 2.5, 3.0]


def test_rate_over_a_window():
    rate = Rate()
    assert rate.per_second(0.0) == 0.0
    for n in range(50):
        rate.tick(n * 0.1)
    assert rate.per_second(4.9) == pytest.approx(10.0)
    assert rate.per_second(20.0) == 0.0


def test_statistics_of_a_camera():
    now = [10.0]
    statistics = CameraStatistics(clock=lambda: now[0])
    assert statistics.seconds_since("received") == float("inf")
    for _ in range(3):
        statistics.count("received")
    assert statistics.count("refused") == 1
    now[0] += 2.0
    assert statistics.seconds_since("received") == 2.0
    assert statistics.counts()["received"] == 3
    assert set(statistics.counts()) == set(CameraStatistics.COUNTERS)
    statistics.add_age(0.25)
    assert statistics.ages() == [0.25]


def test_percentiles():
    assert percentiles([]) == {}
    assert percentiles([3.0]) == {"p50": 3.0, "p95": 3.0}
    assert percentiles([float(i) for i in range(20, 0, -1)]) == {"p50": 10.0, "p95": 19.0}


def test_stage_times():
    stages = StageTimes()
    stages.add({"a": 1.0})
    stages.add({"a": 2.0, "b": 3.0})
    assert stages.latest() == {"a": [1.0, 2.0], "b": [3.0]}
    stages.clear()
    assert stages.latest() == {}
