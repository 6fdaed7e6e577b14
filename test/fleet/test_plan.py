"""Which bags there are, what they are called, what is done with those that cannot be used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin

from panoptic_ros.fleet.plan import find_bags, plan_bags, spans_to_do
from test.fleet.bags import IMAGE, STORE, TEXT, camera_bag, raw, write_bag

TINY = [np.full((8, 8, 3), i, np.uint8) for i in range(20)]
SETTINGS = {"model": "m", "formats": []}


def plan(bags, output, topics=(), span=600, settings=SETTINGS):
    return plan_bags(find_bags(bags, output), output, settings, topics, span)


def text(value: str) -> bytes:
    return STORE.serialize_cdr(STORE.types[TEXT](value), TEXT)


def test_bags_are_found_below_folders_and_each_once(tmp_path):
    one = camera_bag(tmp_path / "in/one", TINY[:1])
    two = camera_bag(tmp_path / "in/deep/two", TINY[:1])
    (tmp_path / "in/single.mcap").write_bytes((one / "one.mcap").read_bytes())
    (tmp_path / "link").symlink_to(one)
    given = [tmp_path / "link", tmp_path / "in", one / "one.mcap", two]
    found = find_bags(given, tmp_path / "out")
    assert sorted(path.name for path in found) == ["one", "single.mcap", "two"]


def test_what_cannot_be_given(tmp_path):
    bag = camera_bag(tmp_path / "in/bag", TINY[:1])
    with pytest.raises(ValueError, match="there is no bag or folder"):
        find_bags([tmp_path / "nothing"], tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="found no bag"):
        find_bags([tmp_path / "empty"], tmp_path / "out")
    for output in (tmp_path / "in/out", tmp_path / "in", bag, bag / "deep/out"):
        with pytest.raises(ValueError, match="inside of the input"):
            find_bags([tmp_path / "in", bag], output)


def test_names_that_collide_are_numbered_and_stay(tmp_path):
    bags = [camera_bag(tmp_path / name / "drive", TINY[:1]) for name in "abc"]
    (tmp_path / "out/drive_2").mkdir(parents=True)  # of somebody else
    names = [p.name for p in plan(bags, tmp_path / "out")]
    assert names == ["drive", "drive_3", "drive_4"]
    assert [p.name for p in plan(bags[::-1], tmp_path / "out")] == names[::-1]


@pytest.mark.parametrize("name", [".hidden", "report.json", ".work", "a\nb"])
def test_no_name_hides_or_replaces_what_is_ours(tmp_path, name):
    bag = camera_bag(tmp_path / "in" / name, TINY[:1])
    [only] = plan([bag], tmp_path / "out")
    assert not only.name.startswith(".") and "\n" not in only.name
    assert only.name != "report.json" and not only.refused


def test_spans_cover_every_moment_once(tmp_path):
    bag = camera_bag(tmp_path / "bag", TINY)
    [only] = plan([bag], tmp_path / "out", span=3)
    assert len(only.spans) > 1
    assert only.spans[0].start is None and only.spans[-1].stop is None
    for before, after in zip(only.spans, only.spans[1:], strict=False):
        assert before.stop == after.start
    assert spans_to_do(only, tmp_path / "out") == list(only.spans)


def test_a_bag_is_divided_by_what_it_holds_not_by_what_it_declares(tmp_path):
    bag = camera_bag(tmp_path / "bag", TINY, first=0)
    file = bag / "metadata.yaml"
    file.write_text(file.read_text().replace("message_count: 20", "message_count: 1000000000"))
    size = (bag / "bag.mcap").stat().st_size
    [only] = plan([bag], tmp_path / "out", span=1)
    assert len(only.spans) <= size // 4096 + 1


def test_bags_that_cannot_be_used_are_refused_with_a_reason(tmp_path):
    whole = camera_bag(tmp_path / "whole", TINY)
    cut = shutil.copytree(whole, tmp_path / "cut")
    (cut / "whole.mcap").write_bytes((whole / "whole.mcap").read_bytes()[:-500])
    (tmp_path / "rubbish.mcap").write_bytes(b"rubbish")
    (tmp_path / "empty.db3").write_bytes(b"")
    silent = write_bag(tmp_path / "silent", [("/chat", TEXT, 1, text("hello"))])
    depth = np.zeros((4, 4), np.uint16)
    deep = write_bag(tmp_path / "deep", [("/depth", IMAGE, 1, raw(1, depth, "16UC1"))])
    missing = camera_bag(tmp_path / "missing", TINY[:1])
    (missing / "missing.mcap").unlink()
    given = [cut, tmp_path / "rubbish.mcap", tmp_path / "empty.db3", silent, deep, missing, whole]
    plans = {Path(p.path).name: p for p in plan(given, tmp_path / "out")}
    for name in ("cut", "rubbish.mcap", "empty.db3", "missing"):
        assert "cannot read bag" in plans[name].refused, name
    assert "its topics: /chat" in plans["silent"].refused
    assert "16UC1" in plans["deep"].refused
    assert not plans["whole"].refused and plans["whole"].frames == 20


def test_depth_is_left_out_where_there_is_a_camera(tmp_path):
    depth = raw(1, np.zeros((4, 4), np.float32), "32FC1")
    rows = [("/depth", IMAGE, 1, depth), ("/color", IMAGE, 2, raw(2, TINY[0]))]
    [only] = plan([write_bag(tmp_path / "bag", rows)], tmp_path / "out")
    assert only.cameras == {"/color": 1} and "32FC1" in only.others["/depth"]


def test_topics_can_be_chosen(tmp_path):
    rows = [(topic, IMAGE, i, raw(i, TINY[0])) for i, topic in enumerate(("/a", "/b", "/c"))]
    bag = write_bag(tmp_path / "bag", rows, StoragePlugin.SQLITE3)
    [only] = plan([bag], tmp_path / "out", topics=["b", "/c"])
    assert set(only.cameras) == {"/b", "/c"}
    [none] = plan([bag], tmp_path / "other", topics=["/d"])
    assert "no images on a camera topic among /d; its topics: /a, /b, /c" in none.refused


def test_what_was_begun_otherwise_is_not_mixed(tmp_path):
    bag = camera_bag(tmp_path / "bag", TINY)
    assert not plan([bag], tmp_path / "out")[0].refused
    [other] = plan([bag], tmp_path / "out", settings={**SETTINGS, "model": "n"})
    assert "model was m, is n" in other.refused
    camera_bag(tmp_path / "new", TINY[:3])
    shutil.copyfile(tmp_path / "new/new.mcap", bag / "bag.mcap")
    assert "files was" in plan([bag], tmp_path / "out")[0].refused
    work = tmp_path / "out/.work/bag/plan.json"
    assert json.loads(work.read_text())["name"] == "bag"
