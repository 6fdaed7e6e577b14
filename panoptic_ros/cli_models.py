"""The commands that make, judge and convert models. Each imports what it needs when called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from panoptic_ros.checkpoints import FORMATS
from panoptic_ros.engines import ENGINES

Model = Annotated[str, typer.Option(help="Name of a model or path to its folder.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Precision = Annotated[str, typer.Option(help="auto, fp32, fp16, bf16 or int8.")]
Engine = Annotated[str, typer.Option(help=f"{', '.join(['auto', *ENGINES])}.")]
Resolution = Annotated[
    str, typer.Option(help="HEIGHTxWIDTH that the network sees; the model's own if not given.")
]

DEFAULT_MODEL = "fpsnet_small"


def evaluate(
    annotations: Annotated[
        Path | None, typer.Option(help="Truth: JSON in the COCO panoptic format.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of the images.")] = None,
    only: Annotated[str, typer.Option(help="Pattern that the names of the images have.")] = "",
    cityscapes: Annotated[Path | None, typer.Option(help="Cityscapes folder.")] = None,
    split: Annotated[str, typer.Option(help="Split of Cityscapes.")] = "val",
    synthetic: Annotated[int, typer.Option(help="Number of synthetic streets.")] = 0,
    predictions: Annotated[
        Path | None, typer.Option(help="Predictions in the COCO panoptic format.")
    ] = None,
    model: Model = "",
    device: Device = "auto",
    precision: Precision = "auto",
    resolution: Resolution = "",
    engine: Engine = "auto",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the metrics.")] = None,
    pictures: Annotated[
        Path | None, typer.Option(help="Folder for pictures of the worst and best images.")
    ] = None,
) -> None:
    """Panoptic quality and mIoU of a model, or of predictions already written."""
    from panoptic_ros.evaluation.command import run_evaluation
    from panoptic_ros.system import keep_freed_memory

    keep_freed_memory()
    run_evaluation(
        annotations=annotations,
        images=images,
        only=only,
        cityscapes=cityscapes,
        split=split,
        synthetic=synthetic,
        predictions=predictions,
        model=model,
        device=device,
        precision=precision,
        resolution=resolution,
        engine=engine,
        json_file=json_file,
        pictures=pictures,
    )


def train(
    config: Annotated[Path, typer.Option(help="Recipe, for example of config/training.")],
    output: Annotated[Path, typer.Option(help="Folder for checkpoints, logs and the model.")],
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint.")] = True,
    device: Device = "auto",
    minutes: Annotated[
        float | None, typer.Option(help="Train so long, not the recipe's iterations.")
    ] = None,
) -> None:
    """Train a model; run it under torchrun for several GPUs."""
    from panoptic_ros.training.trainer import train as run_training

    run_training(config, output, resume=resume, device=device, minutes=minutes)


def streets(
    output: Annotated[Path, typer.Option(help="Folder for images, truth and panoptic.json.")],
    number: Annotated[int, typer.Option(help="Number of streets.")] = 500,
    size: Annotated[str, typer.Option(help="HEIGHTxWIDTH of the images.")] = "360x480",
    seed: Annotated[int, typer.Option(help="Other seeds give other streets.")] = 1,
) -> None:
    """Write synthetic streets with exact truth as a COCO panoptic data set."""
    from panoptic_ros.data.write_streets import write_streets
    from panoptic_ros.input_format import parse_resolution

    typer.echo(f"wrote {write_streets(output, number, parse_resolution(size), seed)}")


def benchmark(
    model: Annotated[str, typer.Option(help="Models or configurations, with commas.")],
    resolution: Annotated[str, typer.Option(help="HEIGHTxWIDTH, several with commas.")] = "",
    batch: Annotated[str, typer.Option(help="Images per call, with commas.")] = "1",
    engine: Annotated[str, typer.Option(help="Engines, with commas.")] = "auto",
    precision: Annotated[str, typer.Option(help="Precisions, with commas.")] = "auto",
    device: Device = "auto",
    frame: Annotated[
        str, typer.Option(help="HEIGHTxWIDTH of the images; the resolution if not given.")
    ] = "",
    repeat: Annotated[int, typer.Option(help="Rounds; each runs everything once.")] = 10,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the numbers.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw them: .png, .pdf or .svg.")] = None,
) -> None:
    """Measure where the time of a frame goes, stage by stage."""
    from panoptic_ros.benchmark.command import run_benchmark

    run_benchmark(
        model=model,
        resolution=resolution,
        batch=batch,
        engine=engine,
        precision=precision,
        device=device,
        frame=frame,
        repeat=repeat,
        json_file=json_file,
        plot=plot,
    )


def import_(
    checkpoint: Annotated[Path, typer.Argument(help="File of the authors.")],
    output: Annotated[Path, typer.Option(help="Model folder to write.")],
    format: Annotated[str, typer.Option(help=f"{', '.join(FORMATS)}.")],
    configuration: Annotated[
        str, typer.Option(help="Name in config/networks; chosen by shapes if not given.")
    ] = "",
) -> None:
    """Turn a published checkpoint into a model folder."""
    from panoptic_ros.checkpoints.importing import import_checkpoint

    typer.echo(f"wrote {import_checkpoint(format, checkpoint, output, configuration)}")


def export(
    output: Annotated[Path, typer.Option(help="File to write; a .json is written beside it.")],
    format: Annotated[str, typer.Option(help="onnx, openvino, tensorrt or exported-program.")],
    model: Model = DEFAULT_MODEL,
    resolution: Resolution = "",
    batch: Annotated[int, typer.Option(help="Images per call.")] = 1,
    precision: Annotated[str, typer.Option(help="fp32, fp16 or bf16.")] = "fp32",
) -> None:
    """Write a model's network for other inference engines."""
    from panoptic_ros.commands.export import export_model

    typer.echo(f"wrote {export_model(model, format, output, resolution, batch, precision)}")


def quantize(
    images: Annotated[
        Path, typer.Option(help="Folder of camera images, video or ROS bag; without truth.")
    ],
    model: Model = DEFAULT_MODEL,
    number: Annotated[int, typer.Option(help="Images to take, evenly spaced.")] = 200,
    resolution: Resolution = "",
) -> None:
    """Write a model's network in int8 into its folder, for --precision int8 on CPUs."""
    from panoptic_ros.commands.quantize import quantize_model

    typer.echo(f"wrote {quantize_model(model, images, number, resolution)}")


COMMANDS = {
    "evaluate": evaluate,
    "train": train,
    "streets": streets,
    "benchmark": benchmark,
    "import": import_,
    "export": export,
    "quantize": quantize,
}
