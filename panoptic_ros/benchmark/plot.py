"""A report as a picture: where the time of each variant's frame goes."""

from __future__ import annotations

from pathlib import Path

from panoptic_ros.benchmark.machine import machine_line
from panoptic_ros.benchmark.results import STAGES, TOTAL, Measurement, Report
from panoptic_ros.system import whole_file

WIDTH, BAR = 9.0, 0.32  # inches
# The forward, which has to be paid, in grey. Colours that the colour-blind can tell apart.
COLORS = dict(zip(STAGES, ("#56B4E9", "#009E73", "#C4C4C4", "#D55E00", "#E69F00"), strict=True))
FORMATS = (".png", ".pdf", ".svg")


def check_plot(path: Path) -> None:
    """Refuse before measuring what could not be drawn after it.

    Raises:
        ValueError: matplotlib is missing, or the ending of the path is none of ``FORMATS``.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"--plot needs matplotlib ({error}): python3 -m pip install matplotlib"
        ) from error
    if path.suffix not in FORMATS:
        raise ValueError(f"--plot is {path}; expected a file that ends in {', '.join(FORMATS)}")


def plot_report(report: Report, path: Path) -> None:
    """Draw a bar for each variant, of the medians of its stages, frames per second at its end.

    Args:
        report: Of at least one measurement.
        path: Of the picture; see ``check_plot``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    measurements = report.measurements
    figure = Figure((WIDTH, BAR * len(measurements) + 1.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    at = range(len(measurements))
    left = [0.0] * len(measurements)
    for stage, color in COLORS.items():
        widths = [1e3 * m.median(stage) / m.variant.batch for m in measurements]
        axes.barh(at, widths, left=left, label=stage, color=color)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    for y, measurement in zip(at, measurements, strict=True):
        end = 1e3 * measurement.median(TOTAL) / measurement.variant.batch
        text = f" {end:.3g} ms, {measurement.frames_per_second:.1f} frames/s"
        axes.text(end, y, text, va="center", fontsize=8)
    axes.set_yticks(at, [_label(m) for m in measurements])
    axes.invert_yaxis()
    axes.set_xlim(right=1.35 * max(left))
    axes.set_xlabel("milliseconds an image (median)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        ncols=len(STAGES), fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1)
    )
    figure.supxlabel(machine_line(report.machine).split("\n")[0], fontsize=7, color="#666666")
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=130)


def _label(measurement: Measurement) -> str:
    variant = measurement.variant
    batch = f", batch {variant.batch}" if variant.batch > 1 else ""
    name = variant.model + "*" * measurement.has_random_weights
    return "{} {}x{}{}\n{} {}".format(
        name, *variant.resolution, batch, variant.engine, variant.precision
    )
