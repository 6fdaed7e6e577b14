from pathlib import Path

import pytest
import torch
import yaml

from panoptic_ros.data.augmentation import Augmentation
from panoptic_ros.training.fields import RecipeError, parse
from panoptic_ros.training.recipe import load_recipe
from panoptic_ros.training.start import check_prefixes, model_config

VARIABLES = (
    "CAMVID",
    "STREETS",
    "TRUNK",
    "CITYSCAPES",
    "COCO",
    "MAPILLARY",
    "PASCAL_VOC",
    "RESNET50",
    "RESNET101",
)
RECIPES = sorted(Path(__file__).parents[2].glob("config/training/*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_of_the_package_can_be_read_and_its_networks_built(path, monkeypatch):
    for name in VARIABLES:
        monkeypatch.setenv(name, f"/data/{name}")
    for stage in load_recipe(path).stages:
        parse(Augmentation, stage.augmentation, "augmentation")
        with torch.device("meta"):
            network = model_config(stage).build()
        start = stage.start
        check_prefixes(network, [*start.fresh, *start.copy, *start.freeze], "start")


def test_stages_repeat_only_what_differs(recipe):
    recipe["stages"] = [
        {"name": "first", "iterations": 3},
        {"model": {"network": {"num_attention": 9}}, "start": {"fresh": ["panoptic_head"]}},
    ]
    first, second = load_recipe(recipe).stages
    assert (first.name, first.iterations, second.name, second.iterations) == (
        "first",
        3,
        "stage2",
        recipe["iterations"],
    )
    assert first.model["network"]["num_attention"] == 4
    assert second.model["network"] == {**first.model["network"], "num_attention": 9}
    assert second.start.fresh == ("panoptic_head",)


def test_model_may_be_a_file_beside_the_recipe_and_changes_to_it(recipe, tmp_path):
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(recipe["model"]))
    recipe["model"] = {"config": "model.yaml", "input": {"resolution": [32, 32]}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    stage = load_recipe(tmp_path / "recipe.yaml").stages[0]
    assert stage.model["name"] == "tiny"
    assert stage.model["input"]["resolution"] == [32, 32]


def test_changes_are_laid_over_the_recipe(recipe):
    read = load_recipe(recipe, {"seed": 9, "optimiser": {"lr": "5e-4"}})
    assert read.seed == 9
    assert read.stages[0].optimiser.lr == 5e-4  # YAML 1.1 reads 5e-4 as a text
    assert read.stages[0].optimiser.weight_decay == 0.01


def test_variables_are_expanded(recipe, monkeypatch):
    recipe["data"][0] = {"set": "cityscapes", "settings": {"root": "${ROOT_OF_TEST}/x"}}
    with pytest.raises(RecipeError, match="variable ROOT_OF_TEST is not set"):
        load_recipe(recipe)
    monkeypatch.setenv("ROOT_OF_TEST", "/data")
    assert load_recipe(recipe).stages[0].data[0].settings == {"root": "/data/x"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"itterations": 5}, r"stages\[0\]: unknown field itterations; known are .*iterations"),
        ({"iterations": 2.5}, r"iterations: expected a whole number, got 2\.5"),
        ({"iterations": True}, "iterations: expected a whole number, got True"),
        ({"iterations": 0}, "iterations is 0; expected 1 or more"),
        ({"optimiser": {"name": "lion"}}, "unknown name 'lion'; known are sgd, adamw, adadelta"),
        ({"optimiser": {"lr": "fast"}}, "optimiser.lr: expected a number, got 'fast'"),
        ({"optimiser": {"betas": [0.9]}}, r"optimiser.betas: expected 2 values, got \[0\.9\]"),
        ({"optimiser": [1]}, r"optimiser: expected a mapping of fields, got \[1\]"),
        ({"schedule": {"milestones": [5, 2]}}, r"milestones are \[5, 2\]; expected ascending"),
        ({"accumulate": 3}, "batch 2 cannot be split into 3 equal parts"),
        ({"data": []}, "data is empty"),
        ({"data": [{"set": "x", "weight": -1}]}, r"data\[0\]: weight is -1.0"),
        ({"model": 3}, "model: expected a mapping, got 3"),
        ({"model": "nowhere.yaml"}, "cannot read nowhere.yaml: No such file"),
        ({"stages": [{"name": "a"}, {"name": "a"}]}, "expected unique"),
        ({"stages": "both"}, "stages: expected a list, got 'both'"),
        ({"workers": -1}, "workers is -1"),
    ],
)
def test_errors_name_the_field(recipe, changes, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(recipe, changes)


def test_missing_field_is_named(recipe):
    del recipe["optimiser"]
    with pytest.raises(RecipeError, match="missing field optimiser"):
        load_recipe(recipe)


def test_files_that_are_no_recipe(tmp_path):
    with pytest.raises(RecipeError, match=r"cannot read .*none\.yaml"):
        load_recipe(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(RecipeError, match=r"bad\.yaml is not valid YAML"):
        load_recipe(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(RecipeError, match="expected a mapping of fields"):
        load_recipe(tmp_path / "list.yaml")
