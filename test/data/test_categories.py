from __future__ import annotations

import pytest

from panoptic_ros.data.categories import load_categories, parse_categories


@pytest.mark.parametrize(
    ("name", "things", "stuff", "first", "last"),
    [
        ("camvid", 3, 8, (1, "sky"), (11, "bicyclist")),
        ("cityscapes", 8, 11, (7, "road"), (33, "bicycle")),
        ("coco", 80, 53, (1, "person"), (200, "rug-merged")),
        ("pascal_voc", 20, 0, (1, "aeroplane"), (20, "tvmonitor")),
        ("mapillary_vistas_v1_2", 37, 28, (1, "Bird"), (65, "Ego Vehicle")),
    ],
)
def test_tables_are_those_of_the_data_sets(name, things, stuff, first, last):
    categories = load_categories(name)
    assert sum(c.is_thing for c in categories) == things
    assert sum(not c.is_thing for c in categories) == stuff
    assert (categories[0].id, categories[0].name) == first
    assert (categories[-1].id, categories[-1].name) == last


def test_name_and_list_are_understood():
    entries = [{"id": 3, "name": "cat", "isthing": 1, "color": [1, 2, 3]}]
    (cat,) = parse_categories(entries)
    assert (cat.id, cat.name, cat.is_thing, cat.color) == (3, "cat", True, (1, 2, 3))
    assert parse_categories("coco") == load_categories("coco")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("vistas", "unknown class table 'vistas'; there are camvid, cityscapes"),
        ([], "at least one category"),
        ([{"id": 1, "name": "a", "isthing": 0}], "lacks color"),
        ([{"id": 1, "name": "a", "isthing": 0, "color": [0, 0, 256]}], "0..255"),
        ([{"id": 300, "name": "a", "isthing": 0, "color": [0, 0, 0]}], "1..255"),
    ],
)
def test_wrong_tables_are_refused(entries, message):
    with pytest.raises(ValueError, match=message):
        parse_categories(entries)
