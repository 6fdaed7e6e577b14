"""The command ``panoptic``. Each command imports what it needs when it is called."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from panoptic_ros import __version__
from panoptic_ros.cli_models import (
    COMMANDS,
    DEFAULT_MODEL,
    Device,
    Engine,
    Model,
    Precision,
    Resolution,
)
from panoptic_ros.commands.classes import classes

app = typer.Typer(
    help="Real-time panoptic segmentation for ROS 2.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


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


for _name, _command in COMMANDS.items():
    app.command(_name)(_command)


def main(arguments: list[str] | None = None) -> Any:
    """Run the command; an error that a user can mend is one line, not a traceback."""
    try:
        return app(arguments)
    except (ValueError, OSError, RuntimeError, json.JSONDecodeError) as error:
        typer.echo(f"panoptic: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
