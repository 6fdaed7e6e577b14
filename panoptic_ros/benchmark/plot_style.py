"""How the curves of a report look: the same model and engine the same way in every panel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from panoptic_ros.benchmark.results import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

# Colours that colour-blind people tell apart (Okabe and Ito).
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
LINES = ("-", "--", "-.", ":")
GREY = "#777777"


class Styles:
    """Colours of models and line styles of engines, the same in all panels."""

    def __init__(self, report: Report) -> None:
        measured = report.measurements
        self.models = list(dict.fromkeys(m.variant.model for m in measured))
        self.engines = list(dict.fromkeys(m.runtime for m in measured))

    def color(self, model: str) -> str:
        """Return the colour of a model."""
        return COLORS[self.models.index(model) % len(COLORS)]

    def line(self, engine: str) -> str:
        """Return the line style of an engine."""
        return LINES[self.engines.index(engine) % len(LINES)]

    def curve(
        self,
        ax: Axes,
        model: str,
        engine: str,
        x: Sequence[float],
        y: Sequence[float],
        note: str,
        **options: Any,
    ) -> None:
        """Draw a curve with a note at its end."""
        color = self.color(model)
        style = {"color": color, "linestyle": self.line(engine), "linewidth": 1.4}
        ax.plot(x, y, marker="o", markersize=4, **style, **options)
        ax.annotate(
            note,
            (x[-1], y[-1]),
            (5, 0),
            textcoords="offset points",
            fontsize=6.5,
            color=color,
            va="center",
        )


def explain(part: SubFigure, report: Report) -> None:
    """Say below the curves which colour and which line is what."""
    from matplotlib.lines import Line2D

    styles = Styles(report)
    handles = [Line2D([], [], color=styles.color(name), label=name) for name in styles.models]
    handles += [
        Line2D([], [], color=GREY, linestyle=styles.line(name), label=name)
        for name in styles.engines
    ]
    part.legend(handles=handles, loc="outside lower left", ncols=5, fontsize=7, frameon=False)


def label_axes(ax: Axes, x: str, y: str) -> None:
    """Name the axes of curves, and leave room for the notes at their ends."""
    ax.set_xlabel(x, fontsize=8)
    ax.set_ylabel(y, fontsize=8)
    ax.grid(color="#E8E8E8", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.margins(x=0.12)


def log_ticks(ax: Axes) -> None:
    """Label 1, 2, 5, 10, ... along a logarithmic y axis: a panel may span less than a decade."""
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator

    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    ax.yaxis.set_minor_locator(NullLocator())


def legend_below(ax: Axes, columns: int, left: float = 0.0) -> None:
    """Put the legend below a panel, ``left`` of its width from its left edge."""
    from matplotlib.transforms import offset_copy

    below = offset_copy(ax.transAxes, ax.figure, y=-30, units="points")
    ax.legend(
        fontsize=6.5,
        ncols=columns,
        frameon=False,
        loc="upper left",
        bbox_to_anchor=(left, 0),
        bbox_transform=below,
    )
