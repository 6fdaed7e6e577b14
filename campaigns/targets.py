"""What is fuzzed: for each kind of input good examples, how to use one, and what may refuse it.

An input is bytes, so that any that ever broke something can be kept as a file and replayed. Using
it returns whether it was served; one of ``refusals`` with a text is the other good end, and
anything else is a finding.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from campaigns.mutation import mutate_bytes


@dataclass(frozen=True)
class Target:
    """A way into the package.

    Attributes:
        name: Also that of its folder in the corpus.
        examples: Good inputs. Mutations start from them, and they must be served at any time.
        use: Takes an input as anyone would give it; raises one of ``refusals`` to refuse it.
        refusals: Errors that the documentation promises.
        hostile: Inputs to mutate that need not be served.
        generate: Makes an input from a seeded generator; mutates bytes if None.
        tokens: Words of the format.
    """

    name: str
    examples: Sequence[bytes]
    use: Callable[[bytes], object]
    refusals: tuple[type[BaseException], ...]
    hostile: Sequence[bytes] = ()
    generate: Callable[[random.Random], bytes] | None = None
    tokens: Sequence[bytes] = ()

    def make(self, rng: random.Random) -> bytes:
        """Return the next input."""
        if self.generate and rng.random() < 0.7:
            return self.generate(rng)
        return mutate_bytes(rng, rng.choice([*self.examples, *self.hostile]), self.tokens)

    def is_served(self, data: bytes) -> bool:
        """Use an input: True if it was served, False if refused with a reason.

        Raises:
            AssertionError: It was refused without one.
            Exception: A finding.
        """
        try:
            self.use(data)
        except self.refusals as error:
            assert str(error).strip(), f"{type(error).__name__} without a reason"
            return False
        return True


def load_target(name: str, folder: Path) -> Target:
    """Make a target, with files of its own in ``folder``; one of ``TARGETS``."""
    return TARGETS[name](folder)


def _messages(folder: Path) -> Target:
    from campaigns.image_targets import messages

    return messages()


def _pictures(folder: Path) -> Target:
    from campaigns.image_targets import pictures

    return pictures(folder)


def _bags(folder: Path) -> Target:
    from campaigns.image_targets import bags

    return bags(folder)


def _db3(folder: Path) -> Target:
    from campaigns.image_targets import db3

    return db3(folder)


def _ros1_bags(folder: Path) -> Target:
    from campaigns.image_targets import ros1_bags

    return ros1_bags(folder)


def _model_yaml(folder: Path) -> Target:
    from campaigns.model_targets import model_yaml

    return model_yaml(folder)


def _weights(folder: Path) -> Target:
    from campaigns.model_targets import weights

    return weights(folder)


def _checkpoints(folder: Path) -> Target:
    from campaigns.model_targets import checkpoints

    return checkpoints(folder)


def _cache(folder: Path) -> Target:
    from campaigns.model_targets import cache

    return cache(folder)


def _recipes(folder: Path) -> Target:
    from campaigns.data_targets import recipes

    return recipes(folder)


def _annotations(folder: Path) -> Target:
    from campaigns.data_targets import annotations

    return annotations(folder)


def _cityscapes(folder: Path) -> Target:
    from campaigns.data_targets import cityscapes

    return cityscapes(folder)


def _parameters(folder: Path) -> Target:
    from campaigns.node_targets import parameters

    return parameters()


def _launch(folder: Path) -> Target:
    from campaigns.node_targets import launch_arguments

    return launch_arguments()


def _node(folder: Path) -> Target:
    from campaigns.node_targets import node_over_dds

    return node_over_dds(folder)


TARGETS: dict[str, Callable[[Path], Target]] = {
    "messages": _messages,
    "pictures": _pictures,
    "bags": _bags,
    "db3": _db3,
    "ros1_bags": _ros1_bags,
    "model_yaml": _model_yaml,
    "weights": _weights,
    "checkpoints": _checkpoints,
    "cache": _cache,
    "recipes": _recipes,
    "annotations": _annotations,
    "cityscapes": _cityscapes,
    "parameters": _parameters,
    "launch": _launch,
    "node": _node,
}
