"""What a trained network would say about a drawn scene: input of benchmarks of post-processing."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from panoptic_ros.model_zoo import ModelConfig
from panoptic_ros.networks.base import PanopticNetwork

_SURE = 8.0  # logit


class Scene:
    """Boxes of things over each other on stripes of stuff.

    Args:
        size: Rows and columns of the network input.
        number: Instances.
        seed: Of the drawing.

    Attributes:
        boxes: float32, (N, 4), (x1, y1, x2, y2) in pixels, the ones in front first.
        draws: float32, (N,), 0..1, from which the classes follow.
    """

    def __init__(self, size: tuple[int, int], number: int, seed: int = 0) -> None:
        self.size, self.number = size, number
        self.generator = torch.Generator().manual_seed(seed)
        height, width = size
        sides = height * 2 ** (self._uniform(number, 2) * 4 - 5.5)  # 1/45 to 1/3 of the height
        centers = self._uniform(number, 2) * torch.tensor([width, height])
        low = (centers - sides / 2).clamp(min=0)
        high = torch.minimum(centers + sides / 2, torch.tensor([width - 1.0, height - 1.0]))
        self.boxes = torch.cat((low, high), dim=1)
        self.draws = self._uniform(number)

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)

    def owner(self, stride: float) -> Tensor:
        """Return the instance in front at every cell, -1 for stuff: int64, (h, w)."""
        rows, columns = (torch.arange(-(-int(side) // stride)) + 0.5 for side in self.size)
        owner = torch.full((len(rows), len(columns)), -1)
        for index in reversed(range(self.number)):
            x1, y1, x2, y2 = self.boxes[index] / stride
            inside_rows = (rows >= y1) & (rows <= y2)
            owner[inside_rows[:, None] & (columns >= x1) & (columns <= x2)] = index
        return owner

    def semantic(self, stride: float, first_thing: int, things: int, stuff: int, first_stuff: int):
        """Return class logits (things + stuff, h, w): stripes of stuff, things in front."""
        owner = self.owner(stride)
        stripes = (torch.arange(owner.shape[1]) * stuff // owner.shape[1]).expand_as(owner)
        of_thing = torch.cat(((self.draws * things).long(), torch.zeros(1, dtype=torch.long)))
        classes = torch.where(owner >= 0, first_thing + of_thing[owner], first_stuff + stripes)
        logits = F.one_hot(classes, things + stuff).movedim(-1, 0).float() * _SURE
        return logits + 0.5 * self._normal(*logits.shape)

    def raw(
        self, config: ModelConfig, network: PanopticNetwork, like: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return outputs of ``forward`` that show this scene.

        Args:
            config: Names the network.
            network: Its kernels may be changed (Panoptic FCN).
            like: Real outputs, for shapes, types and layout.
        """
        shapes = {name: value.shape for name, value in like.items()}
        made = getattr(self, f"_{config.network}")(network, shapes)
        raw = {}
        for name, value in like.items():
            raw[name] = value.clone()
            if name in made:
                raw[name].copy_(made[name].expand_as(value))
        return raw

    def _fpsnet(self, network, shapes):
        """Boxes that the detector finds; the panoptic head says what it wants."""
        anchors = network.detector.anchors(self.size, torch.device("cpu"))
        logits = torch.full(shapes["class_logits"], -_SURE)
        deltas = torch.zeros(shapes["box_deltas"])
        centers = (anchors[:, :2] + anchors[:, 2:]) / 2
        for box, draw in zip(self.boxes, self.draws, strict=True):
            near = (centers - (box[:2] + box[2:]) / 2).norm(dim=1)
            near = near + (anchors[:, 2:] - anchors[:, :2] - box[2:] + box[:2]).norm(dim=1)
            index = near.argmin()
            logits[0, index] = -_SURE
            logits[0, index, int(draw * logits.shape[2])] = _SURE / 2
            deltas[0, index] = network.detector.box_coder.encode_single(
                box[None], anchors[index][None]
            )[0]
        return {"class_logits": logits, "box_deltas": deltas}

    def _dense_detection(self, network, shapes):
        """Every location inside an instance gives the box of the instance."""
        things, stuff = len(network.thing_ids), len(network.stuff_ids)
        first_stuff = things if network.first_thing == 0 else 0
        made = {
            "semantic": self.semantic(8, network.first_thing, things, stuff, first_stuff)[None],
            "levelness": self._normal(*shapes["levelness"]),
        }
        labels = (self.draws * things).long()
        for level in range(3, 8):
            owner = self.owner(2**level)[None]
            boxes = torch.cat((self.boxes, torch.zeros(1, 4)))[owner[0]]
            y, x = (torch.arange(n) * 2**level + 2**level // 2 for n in owner.shape[1:])
            x, y = x.expand_as(owner[0]), y[:, None].expand_as(owner[0])
            offsets = torch.stack(
                (x - boxes[..., 0], y - boxes[..., 1], boxes[..., 2] - x, boxes[..., 3] - y)
            ).where(owner >= 0, 10.0)
            made[f"offsets_p{level}"] = offsets.clamp(min=1)[None]
            classes = torch.cat((labels, labels.new_tensor([things])))[owner[0]]
            hot = F.one_hot(classes, things + 1)[..., :things].movedim(-1, 0)
            made[f"box_class_p{level}"] = ((2 * hot - 1) * _SURE)[None]
            made[f"centerness_p{level}"] = self._normal(*shapes[f"centerness_p{level}"]) + 2
        return made

    def _panonet(self, network, shapes):
        """Embeddings near one point per instance."""
        things, stuff = len(network.thing_ids), len(network.stuff_ids)
        codes = 2 * self._normal(self.number + 1, shapes["embedding"][1])
        embedding = codes[self.owner(4)].movedim(-1, 0)
        embedding = embedding + 0.05 * self._normal(*embedding.shape)
        semantic = self.semantic(4, 0, things, stuff, things)
        return {"semantic": semantic[None], "embedding": embedding[None]}

    def _epsnet(self, network, shapes):
        """Masks from a prototype that is high everywhere and others that vary."""
        _, k, height, width = shapes["prototypes"]
        waves = F.interpolate(self._uniform(1, k, 8, 12), (height, width), mode="bicubic")
        waves[:, 0] = 2.0
        coefficients = 0.2 * self._normal(*shapes["coefficients"])
        coefficients[..., 0] = 0.5
        logits = torch.full(shapes["class_logits"], -_SURE)
        logits[..., 0] = _SURE
        deltas = torch.zeros(shapes["box_deltas"])
        made = {"prototypes": waves, "coefficients": coefficients, "class_logits": logits}
        scale = torch.tensor(self.size).flip(0).repeat(2)
        relative = self.boxes / scale
        indices = torch.randperm(logits.shape[1], generator=self.generator)[: self.number]
        anchors = torch.zeros(shapes["anchors"]) + 0.5
        for index, box, draw in zip(indices, relative, self.draws, strict=True):
            anchors[0, index] = torch.cat(((box[:2] + box[2:]) / 2, box[2:] - box[:2]))
            logits[0, index, 0] = -_SURE
            logits[0, index, 1 + int(draw * (logits.shape[2] - 1))] = _SURE / 2
        made |= {"anchors": anchors, "box_deltas": deltas}
        made["semantic_coefficients"] = 0.3 * self._normal(*shapes["semantic_coefficients"])
        return made

    def _panoptic_fcn(self, network, shapes):
        """Kernels that are the code which the encoding has inside their instance."""
        things, stuff = len(network.thing_ids), network.regions
        stuff -= 1 if network.merged else things
        channels = shapes["encoding"][1]
        for layer in (network.thing_embedding, network.stuff_embedding):
            layer.weight.zero_().fill_diagonal_(1.0)
            layer.bias.zero_()
        codes = F.normalize(self._normal(self.number + stuff, channels - 1))
        owner = self.owner(4)
        stripes = (torch.arange(owner.shape[1]) * stuff // owner.shape[1]).expand_as(owner)
        code = codes[torch.where(owner >= 0, owner, self.number + stripes)].movedim(-1, 0)
        one = torch.ones(1, *code.shape[1:])
        made = {"encoding": torch.cat((code, one))[None]}
        kernels = torch.cat((20 * codes, torch.full((len(codes), 1), -12.0)), dim=1)
        sides = (self.boxes[:, 2:] - self.boxes[:, :2]).amax(1)
        levels = (sides / 16).clamp(min=1).log2().long().clamp(max=4) + 3
        for level in range(3, 8):
            shape = shapes[f"centers_p{level}"]
            centers = torch.full(shape, -_SURE)
            regions = torch.full(shapes[f"regions_p{level}"], -_SURE)
            weights = torch.zeros(shapes[f"kernels_p{level}"])
            first = 1 if network.merged else 0
            columns = torch.arange(shape[3]) * stuff // shape[3]
            regions[0, first + columns, :, torch.arange(shape[3])] = _SURE
            weights[0, :channels] = kernels[self.number + columns].T[:, None]
            # the kernel of stuff is a mean over the cells of the level, not of its region
            weights *= stuff
            for index in torch.nonzero(levels == level).flatten().tolist():
                x, y = (self.boxes[index].view(2, 2).mean(0) / 2**level).long().tolist()
                y, x = min(y, shape[2] - 1), min(x, shape[3] - 1)
                centers[0, int(self.draws[index] * things), y, x] = _SURE
                weights[0, :channels, y, x] = kernels[index]
            made[f"centers_p{level}"] = centers
            made[f"regions_p{level}"], made[f"kernels_p{level}"] = regions, weights
        return made
