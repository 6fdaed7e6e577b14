"""One run of player, node and recorder over DDS: ready, go, all accounted for, end."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from panoptic_ros.demo.processes import DemoError, Event, Processes
from panoptic_ros.demo.report import FATES
from panoptic_ros.files.bag import COMPRESSED_IMAGE, ImageTopic

NODE_NAME = "/panoptic"
READY_SECONDS = 300.0  # a large model on a small CPU takes its time to load
SETTLE_SECONDS = 0.5
PLAY_EXTRA_SECONDS = 60.0
DRAIN_SECONDS = 60.0
DIAGNOSTICS_SECONDS = 1.5  # a status that is this much later than a frame has counted it
ERROR_LEVEL = 2  # diagnostic_msgs/DiagnosticStatus.ERROR


@dataclass
class Log:
    """What the processes told.

    Attributes:
        sent: When each frame was published, by stamp, in nanoseconds.
        received: When each result was received, by stamp, in nanoseconds.
        diagnostics: The newest value of each key of the node's diagnostics.
        diagnosed: When they came, in nanoseconds.
        node_exit_code: Of the node, which was told to end by SIGINT.
    """

    sent: dict[int, int] = field(default_factory=dict)
    received: dict[int, int] = field(default_factory=dict)
    diagnostics: dict[str, str] = field(default_factory=dict)
    diagnosed: int = 0
    node_exit_code: int | None = None

    @property
    def counters(self) -> dict[str, int]:
        """The node's counts of frames; 0 for what it did not tell."""
        return {name: int(self.diagnostics.get(name, 0)) for name in ("received", *FATES)}

    def settled(self) -> bool:
        """Whether the node's counts are final and all it published has been received."""
        counts = self.counters
        last = max(self.sent.values(), default=0)
        return (
            self.diagnosed > last + DIAGNOSTICS_SECONDS * 1e9
            and counts["received"] == sum(counts[name] for name in FATES)
            and len(self.received) >= counts["published"]
        )


class Session:
    """Runs the three processes.

    Args:
        processes: Where to start them; who owns it ends them.
        bag: To replay.
        topic: To read.
    """

    def __init__(self, processes: Processes, bag: Path, topic: ImageTopic) -> None:
        self._processes = processes
        self._topic = topic
        self._told: set[tuple[str, str]] = set()
        self.log = Log()
        self.published_topic = topic.name
        if topic.type == COMPRESSED_IMAGE:  # the name that image_transport gives them
            self.published_topic = topic.name.removesuffix("/compressed") + "/compressed"
        # The player comes first: the node asks for the reliability of the publishers it finds.
        self._player = processes.start(
            "player", "panoptic_ros.demo.player", str(bag), topic.name, self.published_topic
        )

    def start_node(self, parameters: dict[str, str]) -> None:
        """Start the node with these parameters; empty ones keep their default."""
        transport = "compressed" if self._topic.type == COMPRESSED_IMAGE else "raw"
        arguments = ["--ros-args", "-r", f"image:={self.published_topic}"]
        for name, value in {**parameters, "image_transport": transport}.items():
            if value:
                arguments += ["-p", f"{name}:={value}"]
        self._node = self._processes.start("node", "panoptic_ros.ros.node", *arguments)

    def start_recorder(self, recording: Path) -> None:
        """Start recording into the bag folder ``recording``."""
        self._recorder = self._processes.start(
            "recorder", "panoptic_ros.demo.recorder", str(recording), "--node", NODE_NAME
        )

    def wait_until_ready(self) -> None:
        """Wait until all have found each other and the node is active.

        Raises:
            DemoError: That took too long, a process ended, or the node cannot load its model.
        """
        deadline = time.monotonic() + READY_SECONDS
        while not self._is_ready():
            self._take(self._processes.next_event(deadline, "the node to become active"))
        time.sleep(SETTLE_SECONDS)

    def _is_ready(self) -> bool:
        return (
            ("player", "matched") in self._told
            and ("recorder", "ready") in self._told
            # Until it has found the player, the node may still replace its subscription.
            and self.log.diagnostics.get("reliability") == "reliable"
        )

    def play(self, frames: int, seconds: float) -> None:
        """Replay the bag, showing the progress.

        Args:
            frames: In the bag.
            seconds: That it takes.
        """
        deadline = time.monotonic() + seconds + PLAY_EXTRA_SECONDS
        self._player.tell("go")
        with tqdm(total=frames, desc="replay", unit="frame") as bar:
            while ("player", "end") not in self._told:
                self._take(self._processes.next_event(deadline, "the end of the replay"))
                bar.set_postfix(results=len(self.log.received), refresh=False)
                bar.update(len(self.log.sent) - bar.n)

    def drain(self) -> None:
        """Wait until the node has dealt with all frames; the report tells if it never does."""
        deadline = time.monotonic() + DRAIN_SECONDS
        while not self.log.settled() and time.monotonic() < deadline:
            self._take(self._processes.next_event(deadline, "the last results"))

    def end(self) -> None:
        """End node, recorder and player in this order.

        Raises:
            DemoError: The recorder could not close its bag.
        """
        self.log.node_exit_code = self._node.stop()
        if exit_code := self._recorder.stop():
            raise DemoError(
                f"the recorder ended with exit code {exit_code}; last lines of "
                f"{self._recorder.log}:\n{self._recorder.log_tail()}"
            )
        self._player.stop()

    def _take(self, event: Event) -> None:
        fields = event.fields
        self._told.add((event.process, event.kind))
        if event.kind == "frame":
            self.log.sent[fields["stamp"]] = fields["published"]
        elif event.kind == "result":
            self.log.received.setdefault(fields["stamp"], fields["received"])
        elif event.kind == "diagnostics":
            if fields["level"] == ERROR_LEVEL and ("recorder", "ready") not in self._told:
                raise DemoError(f"the node says: {fields['message']}")
            self.log.diagnostics.update(fields["values"])
            self.log.diagnosed = fields["time"]
