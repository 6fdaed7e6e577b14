"""What a run tells without a terminal, and that its log has every step once."""

from __future__ import annotations

import json

from panoptic_ros.training.progress import LOG_FILE, Progress, _Lines


def run(folder, stage, done, until, every=2):
    progress = Progress(folder, stage, iterations=10, done=done, every=every)
    for step in range(done + 1, until + 1):
        progress.step(step, {"loss": float(step)})
    progress.close()


def rows(folder):
    lines = (folder / LOG_FILE).read_text().splitlines()
    return [(row["stage"], row["step"]) for row in map(json.loads, lines)]


def test_steps_that_come_again_stand_in_the_log_once(tmp_path):
    run(tmp_path, "one", 0, 10)
    run(tmp_path, "two", 0, 7)  # killed; its last checkpoint was of step 4
    with (tmp_path / LOG_FILE).open("a") as log:
        log.write('{"stage": "two", "st')
    run(tmp_path, "two", 4, 10)
    assert rows(tmp_path) == [(s, n) for s in ("one", "two") for n in (2, 4, 6, 8, 10)]


def test_the_first_step_is_told_at_once_and_the_last(tmp_path, capsys):
    run(tmp_path, "one", 0, 10)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == ["one: step 1 of 10", "one: step 10 of 10"]
    assert "steps/s" in lines[0] and "loss 1" in lines[0]


def test_a_line_every_few_seconds(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    lines = _Lines("one", 1000, 0)
    for step in range(1, 61):
        now[0] += 1.0
        lines.step(step, {})
    told = [line.split()[2] for line in capsys.readouterr().err.splitlines()]
    assert told == ["1", "11", "21", "31", "41", "51"]
