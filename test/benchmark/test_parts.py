"""Long runs in parts: what fails costs nothing else, what is measured stays measured."""

import math

import pytest

from benchmarks import cpu, gpu
from panoptic_ros.benchmark.loading import load_description
from panoptic_ros.benchmark.parts import Part, run_parts, write_all
from panoptic_ros.benchmark.peers import PEERS
from panoptic_ros.benchmark.results import Variant, read_json, write_json
from panoptic_ros.benchmark.targets import cpu_targets
from panoptic_ros.engines import ENGINES

from .reports import measurement, report

# Stands for a script that measures: "good" copies what was measured, the others go wrong.
SCRIPT = """
import pathlib, sys, time
name, folder = sys.argv[sys.argv.index("--part") + 1], pathlib.Path(sys.argv[-1])
with open(folder / "log", "a") as log:
    log.write(name + " ")
text = (folder / "template").read_text()
if name == "slow":
    (folder / "slow.json").write_text(text.replace('"complete": true', '"complete": false'))
    time.sleep(60)
if name == "broken":
    sys.exit(3)
(folder / (name + ".json")).write_text(text)
"""


def part(name, seconds=30.0):
    return Part(name, (), seconds=seconds)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    write_json(report(measurement()), tmp_path / "template")
    return tmp_path


def run(folder, parts, budget=math.inf, **options):
    joined = []
    result = run_parts(
        folder / "script.py", ["--word"], parts, folder, budget, joined.append, **options
    )
    return result, joined


def test_parts_that_fail_leave_the_others(folder):
    parts = [part("good"), part("broken"), part("slow", 1.0), part("better")]
    result, joined = run(folder, parts)
    assert [m.run for m in result.measurements] == ["good", "slow", "better"]
    assert [len(r.measurements) for r in joined] == [1, 1, 2, 3]
    reasons = dict(result.skipped)
    assert "exit status 3" in reasons["part broken"]
    assert reasons["part slow"] == "ended after 1 s"
    again, _ = run(folder, parts[:3])
    assert (folder / "log").read_text() == "good broken slow better broken slow "
    assert [m.run for m in again.measurements] == ["good", "slow"]


def test_parts_without_time_are_not_started(folder):
    result, _ = run(folder, [part("good"), part("better")], budget=10)
    assert result.skipped == [("part good", "no time left"), ("part better", "no time left")]
    assert not result.measurements and not (folder / "log").exists()


def test_only_some_parts(folder):
    parts = [part("good"), part("better"), part("best")]
    run(folder, parts, only=["better"])
    result, _ = run(folder, parts, only=["good"])
    assert (folder / "log").read_text() == "better good "
    assert [m.run for m in result.measurements] == ["good", "better"]


def test_everything_is_written(tmp_path):
    whole = report(measurement())
    text = write_all(whole, cpu_targets(whole), tmp_path / "new/all", "A heading")
    assert text.startswith("# A heading\n\n| to reach")
    assert (tmp_path / "new/all.md").read_text() == text
    assert read_json(tmp_path / "new/all.json") == whole
    assert (tmp_path / "new/all.png").stat().st_size > 1000


@pytest.mark.parametrize("parts", [cpu.all_parts(7), gpu.all_parts(), cpu.smoke_parts()])
def test_parts_name_what_exists(parts):
    assert len({p.name for p in parts}) == len(parts)
    for item in parts:
        assert len(set(item.variants)) == len(item.variants), item.name
        for variant in item.variants:
            assert isinstance(variant, Variant) and variant.engine in ("auto", *ENGINES)
            load_description(variant.model)
        if item.name != "small":
            assert all(name in PEERS for name, _ in item.peers)


def test_gpu_parts_fit_into_ten_minutes_with_the_targets_first():
    parts = gpu.all_parts()
    assert parts[0].name == "published"
    assert all(p.seconds <= 240 for p in parts)
    assert sum(p.seconds for p in parts[:3]) < 540


def test_gpu_script_says_what_is_missing(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="torch is not installed"):
        gpu.install_missing()
