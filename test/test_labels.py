"""The labels of the shipped models do not change by accident.

The PNGs in test/labels/ hold what each model says of two synthetic streets. After a model was
trained anew, ``python -m test.test_labels`` writes them again.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from panoptic_ros.data.synthetic import SyntheticStreets
from panoptic_ros.model_zoo import available_models
from panoptic_ros.segmenter import Segmenter

FOLDER = Path(__file__).with_name("labels")
STREETS, SIZE = 2, (240, 320)
EQUAL = 0.999  # of the pixels: processors round differently, and ties fall otherwise
INT8_EQUAL = 0.95


def streets() -> list[np.ndarray]:
    data = SyntheticStreets(STREETS, SIZE, seed=11)
    return [data[index][0].permute(1, 2, 0).contiguous().numpy() for index in range(STREETS)]


def labels(model: str) -> list[np.ndarray]:
    segmenter = Segmenter.load(model, device="cpu", precision="fp32", engine="eager")
    return [segmenter(image).labels for image in streets()]


def file_of(model: str, index: int) -> Path:
    return FOLDER / f"{model}_{index}.png"


@pytest.mark.parametrize("model", available_models())
def test_labels_are_as_they_were(model):
    for index, found in enumerate(labels(model)):
        expected = cv2.imread(str(file_of(model, index)), cv2.IMREAD_UNCHANGED)
        assert expected.dtype == np.uint16 and expected.shape == SIZE
        assert len(np.unique(expected)) > 5  # something is seen
        assert (found == expected).mean() >= EQUAL


@pytest.mark.parametrize("model", available_models())
def test_int8_says_nearly_the_same(model):
    pytest.importorskip("openvino")
    segmenter = Segmenter.load(model, device="cpu", precision="int8", engine="openvino")
    for index, image in enumerate(streets()):
        expected = cv2.imread(str(file_of(model, index)), cv2.IMREAD_UNCHANGED)
        assert INT8_EQUAL <= (segmenter(image).labels == expected).mean() < 1


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for model in available_models():
        for index, found in enumerate(labels(model)):
            cv2.imwrite(str(file_of(model, index)), found)


if __name__ == "__main__":
    main()
