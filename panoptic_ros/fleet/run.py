"""A run: gives spans to a runner, tells how it goes, and joins what no worker did."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from panoptic_ros.files.label_messages import LabelMessages
from panoptic_ros.fleet.join import join_bag
from panoptic_ros.fleet.label import SpanResult
from panoptic_ros.fleet.places import Span, bag_folder, missing_parts
from panoptic_ros.fleet.plan import BagPlan, spans_to_do
from panoptic_ros.fleet.report import describe, report_bag, total

Runner = Callable[[Sequence[Span]], Iterator[SpanResult]]


class Run:
    """One run over bags.

    Args:
        plans: Of all bags.
        output: The output folder.
        messages: Of the model.
    """

    def __init__(self, plans: Sequence[BagPlan], output: Path, messages: LabelMessages) -> None:
        self._plans, self._output, self._messages = plans, output, messages
        self._by_name = {plan.name: plan for plan in plans if plan.name}
        self._failures: dict[str, list[str]] = defaultdict(list)

    def run(self, runner: Runner) -> None:
        """Label what is not labelled yet.

        Raises:
            OSError: The output cannot be written, or no worker can start.
        """
        spans = [span for plan in self._plans for span in spans_to_do(plan, self._output)]
        to_do = {span.bag for span in spans}
        frames = total([self._report(self._by_name[name]) for name in to_do])
        there = frames["labelled"] + frames["refused"]
        with tqdm(desc="label", total=frames["declared"], initial=there, unit="frame") as bar:
            for plan in self._plans:
                if plan.name not in to_do:
                    bar.write(describe(self._report(plan)))
            for result in runner(spans) if spans else ():
                self._take(bar, result)
                if result.bag in to_do and self._is_whole(result.bag):
                    to_do.remove(result.bag)
                    bar.write(describe(self._report(self._by_name[result.bag])))
            for name in sorted(to_do):
                self._join(self._by_name[name])
                bar.write(describe(self._report(self._by_name[name])))

    def reports(self) -> list[dict[str, Any]]:
        """Return what became of every bag."""
        return [self._report(plan) for plan in self._plans]

    def _is_whole(self, bag: str) -> bool:
        return bag_folder(self._output, bag).exists()

    def _take(self, bar: tqdm, result: SpanResult) -> None:
        if result.state == "stop":
            raise OSError(
                f"{result.reason} (worker {result.worker}). What is labelled stays: run the same "
                "command again to go on"
            )
        bar.update(result.frames)
        if result.state == "failed":
            self._failures[result.bag].append(f"span {result.number}: {result.reason}")

    def _join(self, plan: BagPlan) -> None:
        """Join a bag whose last two workers saw each other's part too late, as over NFS."""
        if self._is_whole(plan.name) or self._failures[plan.name]:
            return
        if not missing_parts(self._output, plan.name, len(plan.spans)):
            join_bag(self._output, plan.name, self._messages)

    def _report(self, plan: BagPlan) -> dict[str, Any]:
        return report_bag(plan, self._output, self._failures[plan.name])
