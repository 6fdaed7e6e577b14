"""What ``panoptic demo`` (and ``make demo``) does: a drive through the real node, drawn."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from panoptic_ros.demo import report as reporting
from panoptic_ros.demo.pictures import DrivePictures
from panoptic_ros.demo.processes import DemoError, Processes
from panoptic_ros.demo.report import StampCheck
from panoptic_ros.demo.results import RecordedResults, match_results
from panoptic_ros.demo.session import Log, Session
from panoptic_ros.files.bag import ImageBag, write_image_bag
from panoptic_ros.files.camera_messages import ImageError, image_from_message
from panoptic_ros.system import cpu_name, usable_cores

DRIVE_FRAMES = 75
DRIVE_SIZE = (360, 640)  # rows, columns
DRIVE_SEED = 10


def run_demo(
    bag: Path | str | None = None,
    topic: str | None = None,
    model: str = "fpsnet_small",
    resolution: str | None = None,
    *,
    device: str = "auto",
    precision: str = "auto",
    engine: str = "auto",
    tracking: bool = False,
    output: Path | str = "demo",
) -> dict[str, Any]:
    """Replay a drive over DDS, run the node on it, record and draw what it publishes.

    Player, node and recorder are processes of their own in a DDS domain of their own. The folder
    ``output`` gets overlay.mp4, contact_sheet.png, labels.mcap, report.json, and the processes'
    logs; earlier ones are replaced.

    Args:
        bag: Bag with camera images; None makes a synthetic drive.
        topic: Image topic of the bag; None takes the first.
        model: Name of a model or path of its folder.
        resolution: HEIGHTxWIDTH that the network sees; None for the model's own.
        device: As in ``Segmenter.load``.
        precision: As in ``Segmenter.load``.
        engine: As in ``Segmenter.load``.
        tracking: Whether the node follows the things; their numbers are drawn.
        output: Folder to write.

    Returns:
        The report.

    Raises:
        BagError: The bag or topic cannot be used.
        DemoError: A process failed or the node published nothing; the message shows its log.
    """
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    path = Path(bag) if bag else _make_drive(output / "drive")
    with ImageBag(path, topic) as images:
        if topic is None:
            others = ", ".join(t.name for t in images.topics if t != images.topic)
            print(f"images: {images.topic.name}" + (f" (others: {others})" if others else ""))
        parameters = {"model": model, "resolution": resolution or ""}
        parameters |= {"device": device, "precision": precision, "engine": engine}
        parameters |= {"tracking": "true" if tracking else ""}
        recording = output / "labels.mcap"
        log = _replay(images, parameters, output)
        check, codec = _draw(images, recording, log, output)
        report = _make_report(images, log, check, recording)
    report["bag"]["synthetic"] = bag is None
    report["video_codec"] = codec
    (output / "report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    print(summarize(report, output))
    return report


def _make_drive(path: Path) -> Path:
    """Write the synthetic drive as a bag."""
    from panoptic_ros.data.synthetic import FRAME_RATE, drive

    frames = drive(DRIVE_SEED, DRIVE_SIZE, DRIVE_FRAMES)
    images = (image for image, _, _ in tqdm(frames, "make a drive", DRIVE_FRAMES, unit="frame"))
    write_image_bag(path, images, FRAME_RATE)
    return path


def _replay(images: ImageBag, parameters: dict[str, str], output: Path) -> Log:
    """Run the three processes; leaves labels.mcap and logs in ``output``."""
    folder = output / "labels"
    with Processes(output / "logs") as processes:
        session = Session(processes, images.path, images.topic)
        session.start_node(parameters)
        session.start_recorder(folder)
        print("waiting for the node to load its model ...", flush=True)
        session.wait_until_ready()
        session.play(len(images), len(images) / images.frame_rate)
        session.drain()
        session.end()
    # One file without the folder around it: Foxglove opens it, ros2 bag plays it.
    (folder / "labels.mcap").replace(output / "labels.mcap")
    shutil.rmtree(folder)
    if not session.log.received:
        problem = session.log.diagnostics.get("last refusal") or "see the logs"
        raise DemoError(f"the node published no result ({problem}); logs: {output / 'logs'}")
    return session.log


def _draw(images: ImageBag, recording: Path, log: Log, output: Path) -> tuple[StampCheck, str]:
    """Draw the results and check each against the frame of its stamp."""
    check = StampCheck(frozenset(log.sent))
    with RecordedResults(recording) as results:
        for result in results:
            check.add_result(result)
        pictures = DrivePictures(
            output / "overlay.mp4",
            output / "contact_sheet.png",
            images.frame_rate,
            len(images),
            check.results,
            results.categories,
        )
        with pictures:
            pairs = match_results(images.frames(), results)
            for frame, result in tqdm(pairs, "draw", len(images), unit="frame"):
                image = _image(frame.message) if result else None
                if image is not None and check.add_pair(
                    frame.message.header.frame_id, image.shape[:2], result
                ):
                    pictures.add_result(image, result)
                pictures.add_frame()
        pictures.write_sheet()
    return check, pictures.codec


def _image(message: Any) -> np.ndarray | None:
    try:
        return np.ascontiguousarray(image_from_message(message))
    except ImageError:  # the node refused it too
        return None


def _make_report(images: ImageBag, log: Log, check: StampCheck, recording: Path) -> dict[str, Any]:
    diagnostics = log.diagnostics
    with RecordedResults(recording) as results:
        instances = {r.stamp: len(r.prediction.instances) for r in results}
        inference = [r.inference_time * 1e3 for r in results if r.has_instances]
    table = reporting.frame_table(
        log.sent, {stamp: (log.received[stamp], n) for stamp, n in instances.items()}
    )
    latencies = [row["latency_ms"] for row in table if row["latency_ms"] is not None]
    return {
        "frames": reporting.account_for_frames(len(log.sent), len(instances), log.counters),
        "stamps": check.summary(),
        "latency_ms": {
            "end_to_end": reporting.rounded_percentiles(latencies),
            "inference": reporting.rounded_percentiles(inference),
            "node_stages": reporting.stage_latencies(diagnostics),
        },
        "rate_hz": {
            "sent": reporting.rate(list(log.sent.values())),
            "results": reporting.rate(list(log.received.values())),
        },
        "instances_per_frame": reporting.instance_summary(list(instances.values())),
        "model": diagnostics.get("model", ""),
        "device": diagnostics.get("device", ""),
        "precision": diagnostics.get("precision", ""),
        "engine": diagnostics.get("engine", ""),
        "resolution": diagnostics.get("resolution", ""),
        "memory": diagnostics.get("memory", ""),
        "cpu": f"{cpu_name()}, {usable_cores()} cores",
        "versions": reporting.versions(),
        "bag": {
            "path": str(images.path),
            "topic": images.topic.name,
            "type": images.topic.type,
            "frames": len(images),
        },
        "node_exit_code": log.node_exit_code,
        "per_frame": table,
    }


def summarize(report: dict[str, Any], output: Path) -> str:
    """Return the last lines of the demo: what happened, how fast, and where the pictures are."""
    frames, stamps = report["frames"], report["stamps"]
    latency = report["latency_ms"]
    end_to_end = latency["end_to_end"]
    fates = ", ".join(
        f"{frames[name]} {name.replace('_', ' ')}"
        for name in (*reporting.FATES, "lost_in_transport")
        if frames[name] or name in ("published", "dropped", "refused")
    )
    accounted = "all accounted for" if frames["all_accounted_for"] else "NOT ALL ACCOUNTED FOR"
    stamped = "all stamped like their frame" if stamps["verified"] else f"STAMPS WRONG: {stamps}"
    return "\n".join(
        (
            "",
            f"{report['model']} at {report['resolution']}, {report['engine']} in "
            f"{report['precision']} on {report['device']} ({report['cpu']})",
            f"frames    {frames['sent']} sent: {fates}; {accounted}",
            f"results   {stamps['results']} received, {stamped}",
            f"speed     {report['rate_hz']['results']:.1f} results/s; a result is received "
            f"{end_to_end['p50']:.0f} ms (p50), {end_to_end['p95']:.0f} ms (p95) after its frame "
            f"was published; inference {latency['inference']['p50']:.0f} ms (p50)",
            f"pictures  {output / 'overlay.mp4'} ({report['video_codec']}), "
            f"{output / 'contact_sheet.png'}",
            f"data      {output / 'labels.mcap'}, {output / 'report.json'}",
        )
    )
