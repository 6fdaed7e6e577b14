"""A report as one picture of small multiples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from panoptic_ros.benchmark.comparisons import (
    InstanceCost,
    instance_costs,
    peer_ratios,
    relative_costs,
    resolution_slopes,
)
from panoptic_ros.benchmark.machine import machine_line
from panoptic_ros.benchmark.results import PIPELINE, STAGES, Measurement, Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colours that colour-blind people tell apart (Okabe and Ito), the forward in grey.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
STAGE_COLORS = dict(
    zip(
        STAGES,
        ("#56B4E9", "#0072B2", "#009E73", "#BBBBBB", "#D55E00", "#E69F00", "#CC79A7"),
        strict=True,
    )
)
MARKERS = "osD^vP"  # one fewer than colours, so that no two curves of 42 look alike
PANEL = (5.2, 3.6)  # inches
COLUMNS = 2
MOST_BARS = 14


def plot_report(report: Report, path: Path) -> None:
    """Draw what the report holds: a panel for each question that it answers.

    Args:
        report: Of at least one measurement.
        path: Of the picture; its ending says the format.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: There is nothing to draw.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            f"a picture needs matplotlib ({error}); python -m pip install matplotlib"
        ) from error
    panels = _panels(report)
    if not panels:
        raise ValueError("nothing was measured, so there is nothing to draw")
    rows = -(-len(panels) // COLUMNS)
    shape = (rows, min(COLUMNS, len(panels)))
    figure = Figure((PANEL[0] * shape[1], PANEL[1] * rows + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(*shape, squeeze=False).flatten()
    for draw, ax in zip(panels, axes, strict=False):
        draw(ax, report)
        ax.spines[["top", "right"]].set_visible(False)
    for ax in axes[len(panels) :]:
        ax.axis("off")
    figure.suptitle(machine_line(report.machine).split("\n")[0], fontsize=8, color="#555555")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.part{path.suffix}")
    figure.savefig(temporary, dpi=130)
    temporary.replace(path)


def _panels(report: Report) -> list[Callable[[Axes, Report], None]]:
    """Return the panels that the report has data for."""
    candidates = (
        (_draw_stages, _of_pictures(report)),
        (_draw_resolutions, resolution_slopes(report.measurements)),
        (_draw_instances, instance_costs(report.measurements)),
        (_draw_batch_time, relative_costs(report.measurements)),
        (_draw_cameras, relative_costs(report.measurements)),
        (_draw_peers, peer_ratios(report)),
    )
    return [draw for draw, data in candidates if data]


def _draw_stages(ax: Axes, report: Report) -> None:
    """Share of each stage in the call, one bar per variant."""
    measurements = _of_pictures(report)
    labels = [_label(m) for m in measurements]
    left = [0.0] * len(measurements)
    for stage in STAGES:
        spans = [m.median(stage) for m in measurements]
        shares = [100 * s / _sum(m) for s, m in zip(spans, measurements, strict=True)]
        if any(shares):
            ax.barh(labels, shares, left=left, label=stage, color=STAGE_COLORS[stage])
        left = [a + b for a, b in zip(left, shares, strict=True)]
    for index, m in enumerate(measurements):
        text = f" {1e3 * _sum(m):.3g} ms"
        ax.text(100, index, text, va="center", fontsize=6.5, color="#333333")
    ax.invert_yaxis()
    ax.set_xlim(0, 100)
    ax.tick_params(axis="y", labelsize=6.5 if len(labels) < 16 else 4.5, length=0)
    ax.set_xlabel("share of the call (%)", fontsize=8)
    _title(ax, "Where the time goes")
    ax.legend(fontsize=6, ncols=4, loc="lower left", bbox_to_anchor=(-0.3, -0.38), frameon=False)


def _draw_resolutions(ax: Axes, report: Report) -> None:
    """Milliseconds over megapixels, both logarithmic, with a line as the pixels."""
    slopes = resolution_slopes(report.measurements)
    styles = _styles([f"{s.model} {s.engine}" for s in slopes])
    for s in slopes:
        label = f"{s.model}, {s.engine}" + (f", batch {s.batch}" if s.batch > 1 else "")
        milliseconds = [1e3 * value for value in s.seconds]
        ax.plot(s.megapixels, milliseconds, **styles[f"{s.model} {s.engine}"],
                label=f"{label}: {s.slope:.2f}")  # fmt: skip
    ends = (min(s.megapixels[0] for s in slopes), max(s.megapixels[-1] for s in slopes))
    lowest = min(1e3 * s.seconds[0] / s.megapixels[0] for s in slopes) / 1.6
    ax.plot(ends, [lowest * end for end in ends], ":", color="#888888", label="as the pixels: 1")
    ax.set_xscale("log")
    ax.set_yscale("log")
    sizes = sorted({size for s in slopes for size in s.megapixels})
    ax.set_xticks(sizes, [f"{size:.2g}" for size in sizes], fontsize=7)
    ax.minorticks_off()
    _axes(ax, "megapixels of the input", "ms, images to labels")
    _title(ax, "Cost over resolution, and its exponent")
    _legend(ax)


def _draw_instances(ax: Axes, report: Report) -> None:
    """Milliseconds behind the forward over the instances in the scene."""
    groups: dict[str, list[InstanceCost]] = {}
    for cost in instance_costs(report.measurements):
        groups.setdefault(f"{cost.model} {cost.size}, {cost.engine}", []).append(cost)
    for (name, costs), style in zip(groups.items(), _styles(groups).values(), strict=True):
        label = name
        if costs[-1].whole is not None:
            label += f": whole frame x {costs[-1].whole:.2f}"
        x, y = [c.instances for c in costs], [1e3 * c.behind for c in costs]
        ax.plot(x, y, **style, label=label)
    ax.set_ylim(bottom=0)
    _axes(ax, "instances in the scene", "ms behind the forward")
    _title(ax, "Cost over instances")
    _legend(ax)


def _draw_batch_time(ax: Axes, report: Report) -> None:
    """Milliseconds per image over the batch."""
    costs = relative_costs(report.measurements)
    names = list(dict.fromkeys(f"{c.model} {c.size}, {c.engine}" for c in costs))
    for name, style in _styles(names).items():
        group = [c for c in costs if f"{c.model} {c.size}, {c.engine}" == name]
        x, y = [c.batch for c in group], [1e3 * c.seconds / c.batch for c in group]
        ax.plot(x, y, **style, label=name)
    ax.set_ylim(bottom=0)
    ax.set_xticks(sorted({c.batch for c in costs}))
    _axes(ax, "images in a batch", "ms per image")
    _title(ax, "Cost over batch")
    _legend(ax)


def _draw_cameras(ax: Axes, report: Report) -> None:
    """Time and memory of all cameras in one call, as multiples of one camera."""
    costs = relative_costs(report.measurements)
    names = list(dict.fromkeys(f"{c.model} {c.size}, {c.engine}" for c in costs))
    for name, style in _styles(names).items():
        group = [c for c in costs if f"{c.model} {c.size}, {c.engine}" == name]
        x = [c.batch for c in group]
        ax.plot(x, [c.time for c in group], **style, label=f"{name}: time")
        if all(c.memory is not None for c in group):
            dashed = {**style, "linestyle": "--", "markerfacecolor": "white"}
            ax.plot(x, [c.memory for c in group], **dashed, label=f"{name}: memory")
    most = max(c.batch for c in costs)
    ax.plot((1, most), (1, most), ":", color="#888888", label="as many single cameras")
    ax.set_xticks(sorted({c.batch for c in costs}))
    _axes(ax, "cameras in one call", "times one camera")
    _title(ax, "Cost over cameras")
    _legend(ax)


def _draw_peers(ax: Axes, report: Report) -> None:
    """How many times as long the peers take, logarithmic."""
    ratios = peer_ratios(report)
    ours = list(dict.fromkeys(f"{r.model} {r.our_size}, {r.engine}" for r in ratios))
    peers = list(dict.fromkeys(r.peer for r in ratios))
    for offset, (peer, color) in enumerate(zip(peers, cycle(COLORS), strict=False)):
        mine = [r for r in ratios if r.peer == peer]
        at = [ours.index(f"{r.model} {r.our_size}, {r.engine}") for r in mine]
        height = 0.8 / len(peers)
        y = [a + (offset - (len(peers) - 1) / 2) * height for a in at]
        bars = ax.barh(y, [r.ratio for r in mine], height * 0.9, color=color, label=peer)
        ax.bar_label(bars, fmt=" %.1f", fontsize=6)
    ax.axvline(1, color="#888888", linestyle=":", linewidth=1)
    ax.set_yticks(range(len(ours)), ours, fontsize=6.5)
    ax.tick_params(axis="y", length=0)
    ax.invert_yaxis()
    ax.margins(x=0.12)
    ax.set_xlabel("times as long as ours", fontsize=8)
    _title(ax, "Peers, as their users run them")
    _legend(ax)


def _of_pictures(report: Report) -> list[Measurement]:
    """Return what the bars show: single images, and not more variants than can be read."""
    shown = [m for m in report.measurements if m.variant.instances is None]
    shown = [m for m in shown if m.variant.batch == 1] or shown
    if len(shown) > MOST_BARS:
        fastest: dict[object, Measurement] = {}
        for m in sorted(shown, key=lambda m: m.median(PIPELINE)):
            fastest.setdefault((m.variant.model, m.variant.resolution), m)
        shown = [m for m in shown if m in fastest.values()]
    if len(shown) > MOST_BARS:
        largest = {m.variant.model: m for m in sorted(shown, key=lambda m: m.variant.resolution)}
        shown = [m for m in shown if m in largest.values()]
    return shown


def _sum(measurement: Measurement) -> float:
    return sum(measurement.median(stage) for stage in STAGES)


def _label(measurement: Measurement) -> str:
    variant = measurement.variant
    batch = f"{variant.batch} x " if variant.batch > 1 else ""
    size = "{}x{}".format(*variant.resolution)
    return f"{variant.model}\n{batch}{size} {measurement.engine} {measurement.precision}"


def _styles(names: Sequence[str]) -> dict[str, dict[str, object]]:
    """Return colour and marker of every curve."""
    return {
        name: {"color": color, "marker": marker, "markersize": 4, "linewidth": 1.4}
        for name, color, marker in zip(dict.fromkeys(names), cycle(COLORS), cycle(MARKERS))
    }


def _title(ax: Axes, text: str) -> None:
    ax.set_title(text, fontsize=9, loc="left", fontweight="bold")


def _axes(ax: Axes, x: str, y: str) -> None:
    ax.set_xlabel(x, fontsize=8)
    ax.set_ylabel(y, fontsize=8)
    ax.tick_params(labelsize=7)
    ax.grid(color="#E8E8E8", linewidth=0.6)
    ax.set_axisbelow(True)


def _legend(ax: Axes) -> None:
    ax.legend(fontsize=6, frameon=False)
