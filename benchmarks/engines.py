"""Time of ``forward`` with each engine, as a ratio to eager fp32 in the same process.

    python benchmarks/engines.py [NAME ...] [--size 512x1024] [--engines eager:fp32,openvino:bf16]

The time is that of the CPU, so that other programs on the machine disturb little; run it with
OMP_NUM_THREADS=1. Weights are random, the input is noise; the error is the largest difference to
eager fp32, relative to the largest value of its map.
"""

from __future__ import annotations

import argparse
import copy
from functools import partial

import torch

from panoptic_ros.benchmark.cpu_time import median_cpu_seconds
from panoptic_ros.benchmark.loading import load_network, network_resolution
from panoptic_ros.benchmark.targets import PAPERS
from panoptic_ros.devices import PRECISIONS
from panoptic_ros.engines import make_engine
from panoptic_ros.engines.base import Engine, EngineError, EngineInput
from panoptic_ros.input_format import parse_resolution
from panoptic_ros.networks.base import PanopticNetwork
from panoptic_ros.networks.layers.folding import fold_batch_norm

ENGINES = (
    "eager:fp32,openvino:fp32,onnxruntime:fp32,eager:bf16,openvino:bf16,"
    "compiled:fp32,compiled:bf16"
)


def main() -> None:
    """Measure and print one line for each configuration and engine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=PAPERS)
    parser.add_argument(
        "--size", type=parse_resolution, default=(512, 1024), help="EPSNet has its own"
    )
    parser.add_argument("--engines", default=ENGINES, help="ENGINE:PRECISION, eager:fp32 first")
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, CPU time", flush=True)
    for name in arguments.names:
        measure(name, arguments.size, arguments.engines.split(","), arguments.repetitions)


def measure(name: str, size: tuple[int, int], engines: list[str], repetitions: int) -> None:
    """Measure one configuration; a line is printed as soon as it is known."""
    config, network, _ = load_network(name)
    network = fold_batch_norm(network.requires_grad_(False))
    size = network.padded_size(network_resolution(config, size))
    images = torch.randn(1, 3, *size)
    reference, base = None, 0.0
    for words in engines:
        try:
            engine = make(network, size, *words.split(":"))
        except EngineError as error:
            print(f"{name}  {words}  {error}", flush=True)
            continue
        batch = images.to(engine.dtype, memory_format=engine.memory_format)
        raw = {key: value.float() for key, value in engine(batch).items()}
        seconds = median_cpu_seconds(partial(engine, batch), repetitions)
        if reference is None:
            reference, base = raw, seconds
        error = max(float((raw[k] - v).abs().max() / v.abs().max()) for k, v in reference.items())
        print(
            f"{name}  {size[0]}x{size[1]}  {words}  {seconds:.3f} s  ratio {seconds / base:.2f}"
            f"  error {error:.1e}",
            flush=True,
        )


def make(network: PanopticNetwork, size: tuple[int, int], name: str, precision: str) -> Engine:
    """Make an engine from a copy of a network."""
    served = copy.deepcopy(network).to(PRECISIONS[precision], memory_format=torch.channels_last)
    return make_engine(name, EngineInput(served, torch.device("cpu"), precision, size))


if __name__ == "__main__":
    main()
