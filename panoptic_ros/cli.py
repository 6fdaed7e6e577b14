"""The command ``panoptic``. Each command imports what it needs when it is called."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from panoptic_ros import __version__
from panoptic_ros.checkpoints import FORMATS
from panoptic_ros.commands.classes import classes
from panoptic_ros.engines import ENGINES

app = typer.Typer(
    help="Real-time panoptic segmentation for ROS 2.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Model = Annotated[str, typer.Option(help="Name of a model or path to its folder.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Precision = Annotated[str, typer.Option(help="auto, fp32, fp16, bf16 or int8.")]
Engine = Annotated[str, typer.Option(help=f"{', '.join(['auto', *ENGINES])}.")]
Resolution = Annotated[
    str, typer.Option(help="HEIGHTxWIDTH that the network sees; the model's own if not given.")
]

DEFAULT_MODEL = "fpsnet_small"


@app.callback(invoke_without_command=True)
def _main(version: Annotated[bool, typer.Option(help="Print the version.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def models() -> None:
    """List the models that can be used by name."""
    from panoptic_ros.model_zoo import MODEL_FILE, available_models, find_model, load_config

    for name in available_models():
        config = load_config(find_model(name) / MODEL_FILE)
        height, width = config.input.resolution
        description = config.card.get("description", "")
        typer.echo(f"{name:28}{config.network:18}{height}x{width:<8}{description}")


app.command()(classes)


@app.command()
def segment(
    source: Annotated[Path, typer.Argument(help="Image, folder of images, video or ROS bag.")],
    output: Annotated[Path, typer.Option(help="Folder for the results.")],
    model: Model = DEFAULT_MODEL,
    device: Device = "auto",
    precision: Precision = "auto",
    resolution: Resolution = "",
    engine: Engine = "auto",
    topic: Annotated[str, typer.Option(help="Image topic of a bag; the first if not given.")] = "",
) -> None:
    """Segment files: label images, overlays, segments and COCO panoptic predictions."""
    from panoptic_ros.commands.segment import segment_files
    from panoptic_ros.system import keep_freed_memory

    keep_freed_memory()
    failed = segment_files(
        source,
        model,
        output,
        device=device,
        precision=precision,
        resolution=resolution or None,
        engine=engine,
        topic=topic or None,
    )
    raise typer.Exit(1 if failed else 0)


@app.command()
def label(
    bags: Annotated[list[Path], typer.Argument(help="ROS bags, and folders that hold some.")],
    output: Annotated[Path, typer.Option(help="Folder for the labelled bags and report.json.")],
    model: Model = DEFAULT_MODEL,
    format: Annotated[
        str, typer.Option(help="Also write coco (panoptic) or cityscapes; both with a comma.")
    ] = "",
    images: Annotated[bool, typer.Option(help="Write the images beside these, too.")] = False,
    topic: Annotated[str, typer.Option(help="Camera topics, with commas; all if not given.")] = "",
    device: Device = "auto",
    precision: Precision = "auto",
    resolution: Resolution = "",
    engine: Engine = "auto",
    workers: Annotated[
        int, typer.Option(help="Processes; 0 for one on each GPU, else on each core.")
    ] = 0,
    span: Annotated[int, typer.Option(help="Frames that a worker labels at once.")] = 600,
    max_pixels: Annotated[
        int, typer.Option(help="Images that declare more are refused.")
    ] = 64_000_000,
    ray: Annotated[str, typer.Option(help="Address of a Ray cluster, or auto.")] = "",
) -> None:
    """Label all camera images of many bags; run it again to go on where it ended."""
    from panoptic_ros.fleet.command import label_bags

    report = label_bags(
        bags,
        output,
        model=model,
        formats=[name for name in format.split(",") if name],
        images=images,
        topics=[name for name in topic.split(",") if name],
        device=device,
        precision=precision,
        resolution=resolution or None,
        engine=engine,
        workers=workers,
        span=span,
        max_pixels=max_pixels,
        ray=ray or None,
    )
    frames = report["frames"]
    raise typer.Exit(
        0 if frames["labelled"] == frames["declared"] and not report["states"]["refused"] else 1
    )


@app.command()
def demo(
    bag: Annotated[str, typer.Option(help="ROS 2 bag; a synthetic drive if not given.")] = "",
    topic: Annotated[
        str, typer.Option(help="Image topic; the first in the bag if not given.")
    ] = "",
    model: Model = DEFAULT_MODEL,
    resolution: Resolution = "",
    device: Device = "auto",
    precision: Precision = "auto",
    engine: Engine = "auto",
    tracking: Annotated[bool, typer.Option(help="Number things from image to image.")] = False,
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("demo"),
) -> None:
    """Replay a drive through the real node over DDS and draw what it publishes."""
    from panoptic_ros.demo.demo import run_demo

    run_demo(
        bag=bag or None,
        topic=topic or None,
        model=model,
        resolution=resolution or None,
        device=device,
        precision=precision,
        engine=engine,
        tracking=tracking,
        output=output,
    )


@app.command()
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


@app.command()
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


@app.command()
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


@app.command()
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


@app.command("import")
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


@app.command()
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


@app.command()
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


def main(arguments: list[str] | None = None) -> Any:
    """Run the command; an error that a user can mend is one line, not a traceback."""
    try:
        return app(arguments)
    except (ValueError, OSError, RuntimeError, json.JSONDecodeError) as error:
        typer.echo(f"panoptic: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
