"""The papers' networks on a CPU, against their targets and their peers.

``python -m benchmarks.cpu [--only CONFIG ...] [--repeat N] [--peers]`` prints a table; a network
takes minutes. Targets: whole frame / forward at most 1.15; 200 instances / none at most 1.10.
"""

from __future__ import annotations

import argparse

from benchmarks.papers import PAPERS, frame_calls, make_segmenter
from benchmarks.peers import PEERS, Peer
from benchmarks.rounds import medians
from panoptic_ros.benchmark.machine import describe_machine, machine_line
from panoptic_ros.benchmark.table import format_table, milliseconds
from panoptic_ros.system import keep_freed_memory

HALF = (512, 1024)  # of Cityscapes; a CPU takes a second for it


def row(config: str, repeat: int, with_peers: bool) -> list[str]:
    """Measure a network; returns its cells."""
    size = (550, 550) if config.startswith("epsnet") else HALF
    segmenter = make_segmenter(config, size, "cpu")
    calls = frame_calls(segmenter, size, instances=(0, 200))
    peers = {name: Peer(name, size, segmenter.device) for name in PEERS} if with_peers else {}
    found = medians({**calls, **peers}, repeat, segmenter.device)
    none, many = (found["forward"] + found[f"{count} instances"] for count in (0, 200))
    return [
        config,
        "{}x{}".format(*size),
        f"{segmenter.engine} {segmenter.precision}",
        milliseconds(found["frame"]),
        f"{found['frame'] / found['forward']:.2f}",
        f"{many / none:.2f}",
        *(f"{found[name] / found['frame']:.1f}" for name in peers),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    names = [paper.config for paper in PAPERS]
    parser.add_argument("--only", nargs="+", metavar="CONFIG", choices=names, default=names)
    parser.add_argument("--repeat", type=int, default=7, help="rounds")
    parser.add_argument("--peers", action="store_true", help="needs transformers")
    options = parser.parse_args()
    keep_freed_memory()
    print(machine_line(describe_machine()), end="\n\n")
    header = ["network", "size", "engine", "frame, ms", "frame / forward", "200 instances / none"]
    header += [f"times as long: {name}" for name in PEERS] if options.peers else []
    rows = [row(name, options.repeat, options.peers) for name in options.only]
    print(format_table(header, rows, left=3))


if __name__ == "__main__":
    main()
