"""A report as one picture of small multiples.

A colour is a model and a line style an engine, in all panels of curves. What is read off a curve
(its exponent, how many times as much) stands at its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from panoptic_ros.benchmark.comparisons import (
    BatchCost,
    InstanceCost,
    PeerRatio,
    instance_costs,
    peer_ratios,
    relative_costs,
    resolution_slopes,
)
from panoptic_ros.benchmark.machine import machine_line
from panoptic_ros.benchmark.plot_style import (
    COLORS,
    GREY,
    Styles,
    explain,
    label_axes,
    legend_below,
    log_ticks,
)
from panoptic_ros.benchmark.results import PIPELINE, STAGES, Measurement, Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

WIDTH, BAR, CURVES = 11.0, 0.2, 3.3  # inches: the picture, a bar, a row of curves
MOST_BARS = 16
# The forward, which has to be paid, in grey.
STAGE_COLORS = ("#56B4E9", "#0072B2", "#009E73", "#C4C4C4", "#D55E00", "#E69F00", "#CC79A7")

_Cost = TypeVar("_Cost", InstanceCost, BatchCost)


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
    bars = [panel for panel in _BARS if panel.data(report)]
    curves = [panel for panel in _CURVES if panel.data(report)]
    if not bars and not curves:
        raise ValueError("nothing was measured, so there is nothing to draw")
    most = max(
        (len(_of_pictures(report)), 3 * len({(r.model, r.our_size) for r in _of_peers(report)}), 5)
    )
    heights = [BAR * most + 1.2] if bars else []
    heights += [CURVES * -(-len(curves) // 2) + 0.3] if curves else []
    figure = Figure((WIDTH, sum(heights) + 0.3), layout="constrained")
    FigureCanvasAgg(figure)
    parts = list(figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0])
    for part, panels in zip(parts, filter(None, (bars, curves)), strict=True):
        _fill(part, panels, report)
    if curves:
        explain(parts[-1], report)
    figure.suptitle(machine_line(report.machine).split("\n")[0], fontsize=8, color=GREY)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.part{path.suffix}")
    figure.savefig(temporary, dpi=130, bbox_inches="tight")
    temporary.replace(path)


class _Panel(NamedTuple):
    """What a panel shows of a report (nothing, then it is left out), and how."""

    title: str
    data: Callable[[Report], Sequence[Any]]
    draw: Callable[[Axes, Report], None]


def _fill(part: SubFigure, panels: Sequence[_Panel], report: Report) -> None:
    columns = min(2, len(panels))
    axes = part.subplots(-(-len(panels) // columns), columns, squeeze=False).flatten()
    for panel, ax in zip(panels, axes, strict=False):
        panel.draw(ax, report)
        ax.set_title(panel.title, fontsize=9, loc="left", fontweight="bold")
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=7)
    for ax in axes[len(panels) :]:
        ax.axis("off")


def _draw_stages(ax: Axes, report: Report) -> None:
    """Share of each stage in the call, one bar per variant, milliseconds at its end."""
    measurements = _of_pictures(report)
    at = range(len(measurements))
    left = [0.0] * len(measurements)
    for stage, color in zip(STAGES, STAGE_COLORS, strict=True):
        shares = [100 * m.median(stage) / _sum(m) for m in measurements]
        if any(shares):
            ax.barh(at, shares, left=left, label=stage, color=color)
        left = [a + b for a, b in zip(left, shares, strict=True)]
    for index, m in enumerate(measurements):
        ax.text(101, index, f"{_digits(1e3 * _sum(m))} ms", va="center", fontsize=7)
    ax.set_yticks(at, [_label(m) for m in measurements])
    ax.tick_params(axis="y", length=0)
    ax.invert_yaxis()
    ax.set_xlim(0, 100)
    ax.set_xlabel("share of the call (%)", fontsize=8)
    legend_below(ax, 4)


def _draw_peers(ax: Axes, report: Report) -> None:
    """How many times as long the peers take, logarithmic; left of 1 they are faster."""
    ratios = _of_peers(report)
    ours = list(dict.fromkeys(_name(r.model, r.our_size, r.engine) for r in ratios))
    peers = list(dict.fromkeys(r.peer for r in ratios))
    height = 0.8 / len(peers)
    for number, peer in enumerate(peers):
        mine = [r for r in ratios if r.peer == peer]
        offset = (number - (len(peers) - 1) / 2) * height
        y = [ours.index(_name(r.model, r.our_size, r.engine)) + offset for r in mine]
        widths = [r.ratio - 1 for r in mine]
        ax.barh(y, widths, height * 0.9, left=1, color=COLORS[number], label=peer)
        for where, r in zip(y, mine, strict=True):
            ax.text(max(r.ratio, 1), where, f" {r.ratio:.1f}", va="center", fontsize=6)
    ax.set_xscale("log")
    low = min(1.0, *(r.ratio for r in ratios))
    ax.set_xlim(0.9 * low, 1.6 * max(r.ratio for r in ratios))
    ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if low <= t <= ax.get_xlim()[1]]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.axvline(1, color=GREY, linewidth=1)
    ax.set_yticks(range(len(ours)), ours)
    ax.tick_params(axis="y", length=0)
    ax.invert_yaxis()
    ax.set_xlabel("times as long as ours", fontsize=8)
    legend_below(ax, 2, -0.55)


def _draw_resolutions(ax: Axes, report: Report) -> None:
    """Milliseconds over megapixels, both logarithmic, and a line that grows as the pixels."""
    slopes = resolution_slopes(report.measurements)
    styles = Styles(report)
    for s in slopes:
        milliseconds = [1e3 * value for value in s.seconds]
        styles.curve(ax, s.model, s.engine, s.megapixels, milliseconds, f"{s.slope:.2f}")
    ends = (min(s.megapixels[0] for s in slopes), max(s.megapixels[-1] for s in slopes))
    lowest = min(1e3 * s.seconds[0] / s.megapixels[0] for s in slopes) / 1.7
    ax.plot(ends, [lowest * end for end in ends], color=GREY, linewidth=1)
    ax.annotate(" pixels: 1", (ends[1], lowest * ends[1]), fontsize=6.5, color=GREY, va="center")
    ax.set_xscale("log")
    ax.set_yscale("log")
    sizes = sorted({size for s in slopes for size in s.megapixels})
    ax.set_xticks(sizes, [f"{size:.2g}" for size in sizes])
    ax.minorticks_off()
    log_ticks(ax)
    label_axes(ax, "megapixels of the input", "ms, images to labels")


def _draw_instances(ax: Axes, report: Report) -> None:
    """Milliseconds behind the forward over the instances in the scene."""
    costs = instance_costs(report.measurements)
    for curve, group in _curves(ax, report, costs):
        note = "" if group[-1].whole is None else f"x {group[-1].whole:.2f}"
        curve([c.instances for c in group], [1e3 * c.behind for c in group], note)
    ax.set_xticks(sorted({c.instances for c in costs}))
    ax.set_ylim(bottom=0)
    label_axes(ax, "instances in the scene", "ms behind the forward")


def _draw_batches(ax: Axes, report: Report) -> None:
    """Milliseconds per image over the batch."""
    costs = relative_costs(report.measurements)
    for curve, group in _curves(ax, report, costs):
        each = [1e3 * c.seconds / c.batch for c in group]
        curve([c.batch for c in group], each, f"{_digits(each[-1])} ms")
    ax.set_xticks(sorted({c.batch for c in costs}))
    ax.set_ylim(bottom=0)
    label_axes(ax, "images in a batch", "ms per image")


def _draw_cameras(ax: Axes, report: Report) -> None:
    """Time (filled) and memory (hollow) of all cameras in one call, as multiples of one."""
    costs = relative_costs(report.measurements)
    for curve, group in _curves(ax, report, costs):
        batches = [c.batch for c in group]
        curve(batches, [c.time for c in group], f"{group[-1].time:.1f}")
        memory = [c.memory for c in group]
        if None not in memory:
            curve(batches, memory, f"{memory[-1]:.1f}", markerfacecolor="white")
    most = max(c.batch for c in costs)
    ax.plot((1, most), (1, most), color=GREY, linewidth=1)
    ax.annotate(" one by one", (most, most), fontsize=6.5, color=GREY, va="bottom", ha="right")
    ax.set_xticks(sorted({c.batch for c in costs}))
    ax.set_ylim(bottom=0)
    label_axes(ax, "cameras in one call", "times one camera")


def _curves(
    ax: Axes, report: Report, costs: Sequence[_Cost]
) -> Iterator[tuple[Callable[..., None], list[_Cost]]]:
    """Return the costs of each model, engine and size, and what draws a curve of them."""
    styles = Styles(report)
    for key in dict.fromkeys((c.model, c.engine, c.size) for c in costs):
        model, engine, _ = key
        group = [c for c in costs if (c.model, c.engine, c.size) == key]
        yield partial(styles.curve, ax, model, engine), group


def _of_pictures(report: Report) -> list[Measurement]:
    """Return what the bars show: single images, and not more variants than can be read."""
    shown = [m for m in report.measurements if m.variant.instances is None]
    shown = [m for m in shown if m.variant.batch == 1] or shown
    for same in (
        lambda m: (m.variant.model, m.variant.resolution),  # the fastest engine
        lambda m: m.variant.model,  # the largest size
    ):
        if len(shown) > MOST_BARS:
            best: dict[object, Measurement] = {}
            for m in sorted(shown, key=lambda m: (m.variant.resolution, -m.median(PIPELINE))):
                best[same(m)] = m
            shown = [m for m in shown if best[same(m)] is m]
    return shown


def _of_peers(report: Report) -> list[PeerRatio]:
    """Return the comparisons with the fastest engine of each model and size."""
    ratios = peer_ratios(report)
    fastest: dict[tuple[str, str], PeerRatio] = {}
    for r in sorted(ratios, key=lambda r: -r.our_seconds):
        fastest[r.model, r.our_size] = r
    return [r for r in ratios if r.engine == fastest[r.model, r.our_size].engine]


def _sum(measurement: Measurement) -> float:
    return sum(measurement.median(stage) for stage in STAGES)


def _label(measurement: Measurement) -> str:
    return _name(measurement.variant.model, measurement.images, measurement.runtime)


def _name(model: str, size: str, engine: str) -> str:
    return f"{model} {size} {engine}"


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


_BARS = (
    _Panel("Where the time goes", _of_pictures, _draw_stages),
    _Panel("Peers, as their users run them", _of_peers, _draw_peers),
)
_CURVES = (
    _Panel(
        "Cost over resolution, and its exponent",
        lambda report: resolution_slopes(report.measurements),
        _draw_resolutions,
    ),
    _Panel(
        "Cost over instances",
        lambda report: instance_costs(report.measurements),
        _draw_instances,
    ),
    _Panel(
        "Cost over batch",
        lambda report: relative_costs(report.measurements),
        _draw_batches,
    ),
    _Panel(
        "Cost over cameras: time, and memory (hollow)",
        lambda report: relative_costs(report.measurements),
        _draw_cameras,
    ),
)
