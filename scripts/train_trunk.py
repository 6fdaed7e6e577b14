#!/usr/bin/env python3
"""Train an EfficientNet-Lite to tell classes apart, as the start of all five small models.

A plain FPN with logits at 1/4 is trained on semantics alone; its trunk is written as safetensors,
for ``start.backbone`` of a recipe. It begins from ImageNet weights, which change slowly and keep
the statistics of their batch norms, and goes on where it was broken off.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import FeaturePyramidNetwork

from panoptic_ros.checkpoints import backbones
from panoptic_ros.checkpoints.importing import read_state_dict
from panoptic_ros.data.augmentation import Augmentation
from panoptic_ros.data.coco_panoptic import CocoPanoptic
from panoptic_ros.devices import resolve_device, resolve_precision
from panoptic_ros.networks.layers.backbones import build_backbone
from panoptic_ros.system import keep_freed_memory, write_file
from panoptic_ros.training.checkpoint import load_checkpoint, save_checkpoint
from panoptic_ros.training.optimisers import Ema

CHANNELS, STRIDE = 96, 4
RATE, TRUNK_RATE = 1e-3, 3e-4  # chosen on the drive 0006R0, which was left out
MEAN, STD = 127.0, 128.0  # of EfficientNet-Lite's own training


class SemanticFPN(nn.Module):
    """Logits of all classes at 1/4 from C2..C5."""

    def __init__(self, backbone: str, classes: int) -> None:
        super().__init__()
        self.backbone = build_backbone(backbone)
        self.fpn = FeaturePyramidNetwork(
            self.backbone.channels, CHANNELS, norm_layer=nn.BatchNorm2d
        )
        self.head = nn.Sequential(
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False),
            nn.BatchNorm2d(CHANNELS),
            nn.ReLU(inplace=True),
            nn.Conv2d(CHANNELS, classes, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, classes, H / 4, W / 4) of images (B, 3, H, W)."""
        pyramid = self.fpn({str(i): c for i, c in enumerate(self.backbone(images))}).values()
        finest, *coarser = pyramid
        for level in coarser:
            finest = finest + F.interpolate(level, size=finest.shape[-2:], mode="bilinear")
        return self.head(finest)


def class_weights(data: CocoPanoptic, classes: int) -> Tensor:
    """Return frequency ** -0.4 of each class, 1 on average over the pixels; 0 for void."""
    counts = torch.zeros(classes)
    for _, annotation in data.entries:
        for segment in annotation["segments_info"]:
            counts[segment["category_id"]] += segment["area"]
    share = counts / counts.sum()
    weights = torch.where(counts > 0, share.clamp(min=1e-9) ** -0.4, 0)
    return weights / (weights * share).sum()


class Run:
    """The network, its average, and what moves it; goes on from ``checkpoint`` if there is one."""

    def __init__(
        self, network: SemanticFPN, steps: int, checkpoint: Path, device: torch.device
    ) -> None:
        self.network = network.to(device, memory_format=torch.channels_last)
        self.average = Ema(copy.deepcopy(self.network), 0.998)
        groups = [
            {"params": [*network.backbone.parameters()]},
            {"params": [*network.fpn.parameters(), *network.head.parameters()]},
        ]
        self.optimiser = torch.optim.AdamW(groups, weight_decay=0.02)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser, [TRUNK_RATE, RATE], total_steps=steps, pct_start=0.05
        )
        has_bf16 = resolve_precision("auto", device) == "bf16"
        self._autocast = torch.autocast(device.type, torch.bfloat16, enabled=has_bf16)
        self._checkpoint, self._steps, self.step = checkpoint, steps, 0
        if checkpoint.exists():
            saved = load_checkpoint(checkpoint)
            if saved["steps"] != steps:
                sys.exit(f"{checkpoint} is of {saved['steps']} steps, not {steps}; delete it")
            self.step = saved["step"]
            for name, part in self._parts().items():
                part.load_state_dict(saved[name])

    def _parts(self) -> dict[str, Any]:
        return {
            "network": self.network,
            "average": self.average.network,
            "optimiser": self.optimiser,
            "schedule": self.schedule,
        }

    def save(self) -> None:
        """Write the checkpoint."""
        parts = {name: part.state_dict() for name, part in self._parts().items()}
        save_checkpoint(self._checkpoint, {"step": self.step, "steps": self._steps, **parts})

    def learn(self, images: Tensor, truth: Tensor, weights: Tensor) -> float:
        """Make a step; returns the loss.

        Args:
            images: uint8, (B, 3, H, W), RGB.
            truth: int64, (B, H, W), category ids, 0 for void.
            weights: Of the classes.
        """
        images = ((images.float() - MEAN) / STD).contiguous(memory_format=torch.channels_last)
        self.network.train()
        self.network.backbone.eval()  # batch norms, which keep their statistics
        with self._autocast:
            logits = self.network(images)
        sampled = truth[:, STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE]
        loss = F.cross_entropy(logits.float(), sampled, weights, ignore_index=0)
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 10.0)
        self.optimiser.step()
        self.schedule.step()
        self.step += 1
        self.average.update(self.network, self.step)
        return float(loss.detach())


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--annotations", nargs="+", required=True, help="COCO panoptic JSON files")
    parser.add_argument("--images", nargs="+", required=True, help="a folder for each")
    parser.add_argument("--without", default="", help="leave out images by name, a pattern")
    parser.add_argument("--backbone", default="efficientnet_lite2")
    parser.add_argument("--weights", type=Path, required=True, help="of ImageNet, .pth")
    parser.add_argument("--output", type=Path, required=True, help="the trunk, .safetensors")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


def main() -> None:
    """Train, and write the trunk."""
    options = arguments()
    keep_freed_memory()
    device = resolve_device(options.device)
    pairs = zip(options.annotations, options.images, strict=True)
    sets = [CocoPanoptic(*pair, without=options.without) for pair in pairs]
    classes = max(c.id for c in sets[0].categories) + 1
    weights = sum(class_weights(data, classes) for data in sets).to(device) / len(sets)
    samples = [data[i] for data in sets for i in range(len(data))]  # decoded once
    augment = Augmentation((0.6, 2.0), crop_size=(288, 384), light=0.5)
    torch.manual_seed(0)
    network = SemanticFPN(options.backbone, classes)
    imagenet = backbones.convert(read_state_dict(options.weights))
    network.backbone.load_state_dict(imagenet, strict=False)  # counters of batch norms may lack
    run = Run(network, options.steps, options.output.with_suffix(".pt"), device)
    first, start = run.step, time.monotonic()
    while run.step < options.steps:
        torch.manual_seed(run.step)
        chosen = torch.randint(len(samples), (options.batch,)).tolist()
        images, targets = zip(*(augment(*samples[i]) for i in chosen), strict=True)
        truth = torch.stack([target.semantic() for target in targets])
        loss = run.learn(torch.stack(images).to(device), truth.to(device), weights)
        if run.step == first + 1 or run.step % 20 == 0:
            rate = (time.monotonic() - start) / (run.step - first)
            told = f"step {run.step} of {options.steps}: loss {loss:.3f}, {rate:.2f} s each"
            print(told, flush=True)
        if run.step % 100 == 0 or run.step == options.steps:
            run.save()
    trunk = run.average.network.backbone.state_dict()
    write_file(options.output, save({k: v.contiguous().cpu() for k, v in trunk.items()}))
    print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
