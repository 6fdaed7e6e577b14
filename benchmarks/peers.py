"""Networks of other libraries, used as their users use them: eager, float32, their own transforms.

All have fresh weights, as nothing is downloaded: as fast, but what they see means nothing. They
run in this process, with the same threads and the same malloc as what they are compared with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from panoptic_ros.benchmark.pictures import street_images

Size = tuple[int, int]
MASK_RCNN = "torchvision Mask R-CNN R50-FPN"
MASK2FORMER = "transformers Mask2Former R50"
MASKFORMER = "transformers MaskFormer R50"
CLASSES = 19  # Cityscapes'
# What a detector finds decides how many masks it makes and pastes. Fresh weights find nothing, or
# everything: the threshold is set so that it is about what a busy street holds.
DETECTIONS = 20


class PeerSteps(NamedTuple):
    """A network in three steps: image to input, input to raw output, raw output to result."""

    preprocess: Callable[[np.ndarray], Any]
    forward: Callable[[Any], Any]
    postprocess: Callable[[Any], Any]
    count: Callable[[Any], int]
    note: str


class Peer:
    """A peer, loaded; calling it segments one image.

    Args:
        name: Key of ``PEERS``.
        size: (height, width) of the image, and of what the network sees.
        device: Where it runs.

    Attributes:
        detections: Instances (segments) that the last call returned.
        note: How it was set up.

    Raises:
        ImportError: Its library is not installed; the message says what to install.
    """

    def __init__(self, name: str, size: Size, device: torch.device) -> None:
        (self._image,) = street_images(1, size)
        torch.manual_seed(0)
        self._steps = PEERS[name](self._image, device)
        self.note, self.detections = self._steps.note, 0

    @torch.inference_mode()
    def __call__(self) -> None:
        steps = self._steps
        result = steps.postprocess(steps.forward(steps.preprocess(self._image)))
        self.detections = steps.count(result)


def mask_rcnn(image: np.ndarray, device: torch.device) -> PeerSteps:
    """Return torchvision's Mask R-CNN; its transform leaves the image at its size."""
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    height, width = image.shape[:2]
    model = maskrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=CLASSES,
        min_size=min(height, width),
        max_size=max(height, width),
        box_detections_per_img=DETECTIONS,
    )
    model = model.eval().to(device)

    def preprocess(image: np.ndarray) -> list[Tensor]:
        return [torch.from_numpy(image).to(device).permute(2, 0, 1).float() / 255]

    def download(outputs: list[dict[str, Tensor]]) -> dict[str, np.ndarray]:
        return {name: value.cpu().numpy() for name, value in outputs[0].items()}

    with torch.inference_mode():
        limit_detections(model, preprocess(image), DETECTIONS)
    return PeerSteps(
        preprocess,
        model,  # its own post-processing, down to pasted masks, is part of it
        download,
        lambda result: len(result["boxes"]),
        f"random weights, score threshold set for about {DETECTIONS} detections; forward includes "
        "its own transform and the pasting of masks",
    )


def limit_detections(model: Any, images: list[Tensor], wanted: int) -> float:
    """Set Mask R-CNN's score threshold so that it finds about ``wanted`` boxes; return it.

    Fresh weights give all classes of all boxes nearly the same score. At a threshold that all
    exceed, every class of 1000 boxes would go through suppression, which no trained network does.
    """
    heads = model.roi_heads
    arguments: list[tuple[Any, ...]] = []
    original = heads.postprocess_detections

    def capture(*given: Any) -> Any:
        arguments.append(given)
        return original(*given)

    heads.postprocess_detections = capture
    model(images)
    heads.postprocess_detections = original
    scores = arguments[0][0].softmax(-1)[:, 1:].flatten().sort(descending=True).values
    number = wanted
    while True:  # the more boxes pass, the more are left after suppression
        heads.score_thresh = float(scores[min(number, len(scores) - 1)])
        boxes = original(*arguments[0])[0]
        if len(boxes[0]) >= wanted or number >= len(scores):
            return heads.score_thresh
        number *= 2


def mask2former(image: np.ndarray, device: torch.device) -> PeerSteps:
    """Return transformers' Mask2Former with a ResNet-50."""
    transformers = _transformers()
    config = transformers.Mask2FormerConfig(backbone_config=_resnet(), num_labels=CLASSES)
    model = transformers.Mask2FormerForUniversalSegmentation(config)
    return _transformer(image, model, transformers.Mask2FormerImageProcessor, device)


def maskformer(image: np.ndarray, device: torch.device) -> PeerSteps:
    """Return transformers' MaskFormer with a ResNet-50."""
    transformers = _transformers()
    config = transformers.MaskFormerConfig(backbone_config=_resnet(), num_labels=CLASSES)
    model = transformers.MaskFormerForInstanceSegmentation(config)
    return _transformer(image, model, transformers.MaskFormerImageProcessor, device)


def _transformer(
    image: np.ndarray, model: Any, processor_class: Any, device: torch.device
) -> PeerSteps:
    model = model.eval().to(device)
    size = image.shape[:2]
    processor = processor_class(do_resize=False)  # the image has the size already

    def preprocess(image: np.ndarray) -> dict[str, Tensor]:
        return processor(images=image, return_tensors="pt").to(device)

    def segment(outputs: Any) -> dict[str, Any]:
        (result,) = processor.post_process_panoptic_segmentation(outputs, target_sizes=[size])
        return {**result, "segmentation": result["segmentation"].cpu().numpy()}

    return PeerSteps(
        preprocess,
        lambda inputs: model(pixel_values=inputs["pixel_values"], pixel_mask=inputs["pixel_mask"]),
        segment,
        lambda result: len(result["segments_info"]),
        "random weights, which leave its post-processing next to nothing to do",
    )


def _resnet() -> Any:
    return _transformers().ResNetConfig(out_features=["stage1", "stage2", "stage3", "stage4"])


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            f"transformers is not installed ({error}); python -m pip install transformers"
        ) from error
    transformers.logging.set_verbosity_error()
    return transformers


PEERS: dict[str, Callable[[np.ndarray, torch.device], PeerSteps]] = {
    MASK_RCNN: mask_rcnn,
    MASK2FORMER: mask2former,
    MASKFORMER: maskformer,
}
