"""``make faults ROUNDS=20``: processes killed at random moments, disks that take nothing.

    python -m campaigns.faults --rounds 20 --seed 1

What stands in a file afterwards must be whole: the old or the new. A training that was killed and
resumed any number of times has every step in its log once. The faults of the node (out of memory,
threads that raise, a process or a subscriber that stands still, time that jumps, models that
change) are tests, in test/ros/test_faults.py.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from campaigns.commands import commands, kill_command
from campaigns.image_targets import IMAGE
from campaigns.kills import KINDS, kill_at_every_step, kill_trainings, kill_writers
from campaigns.model_targets import TINY

NOBODY = 65534  # user and group


def on_small_disk(size: int, read_only: bool, use: Callable[[Path], None]) -> bool:
    """Call a function with a folder on a disk of ``size`` bytes; False if none can be mounted."""
    with tempfile.TemporaryDirectory() as text:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", text]
        if subprocess.run(mount, capture_output=True).returncode:
            return False
        try:
            if read_only:
                subprocess.run(["mount", "-o", "remount,ro", text], check=True)
            use(Path(text))
        finally:
            subprocess.run(["umount", text], check=True)
    return True


def check_full_disk(folder: Path) -> None:
    """A full or read-only disk: an OSError with the reason, and what was there stays."""
    from panoptic_ros.engines import cache
    from panoptic_ros.system import write_file

    old = folder / "old"
    fits = os.statvfs(folder).f_flag & os.ST_RDONLY == 0
    if fits:
        write_file(old, b"whole")
    for path in (old, folder / "new"):
        try:
            write_file(path, bytes(1 << 21))
        except OSError as error:
            assert error.strerror
        else:
            raise AssertionError(f"{path} was written")
    left = sorted(entry.name for entry in folder.iterdir())
    assert left == (["old"] if fits else []), left
    assert not fits or old.read_bytes() == b"whole"
    os.environ[cache.CACHE_VARIABLE] = str(folder / "cache")
    assert cache.cached("key", lambda: (bytes(1 << 21), "built"), bytes.decode) == "built"


def as_nobody(use: Callable[[], None]) -> bool:
    """Call a function in a process without root's rights; returns whether it raised nothing."""
    child = os.fork()
    if not child:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            use()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0


def check_permission_denied(folder: Path) -> bool:
    """Try to write to a folder, and to read files, that one may not; True if each was refused."""
    from panoptic_ros.drawing import write_image
    from panoptic_ros.engines import cache
    from panoptic_ros.files.pictures import read_image
    from panoptic_ros.model_zoo import ModelError, load_model, parse_config, save_model
    from panoptic_ros.training.checkpoint import load_checkpoint, save_checkpoint

    config = parse_config(TINY)
    network = config.build()
    model, picture, checkpoint = folder / "model", folder / "a.png", folder / "a.pt"
    save_model(model, config, network)
    write_image(picture, IMAGE)
    save_checkpoint(checkpoint, {"a": 1})
    for path in (*model.iterdir(), picture, checkpoint):
        path.chmod(0o000)
    for path in (model, folder):
        path.chmod(0o555)
    os.environ[cache.CACHE_VARIABLE] = str(folder / "cache")

    def use() -> None:
        attempts = {
            "write a model": lambda: save_model(model, config, network),
            "write a new model": lambda: save_model(folder / "new", config, network),
            "write a picture": lambda: write_image(folder / "b.png", IMAGE),
            "write a checkpoint": lambda: save_checkpoint(checkpoint, {"a": 2}),
            "read a model": lambda: load_model(model),
            "read a picture": lambda: read_image(picture),
            "read a checkpoint": lambda: load_checkpoint(checkpoint),
        }
        for what, attempt in attempts.items():
            try:
                attempt()
            except (OSError, ModelError) as error:
                assert "ermission denied" in str(error) and str(folder) in str(error), error
            else:
                raise AssertionError(f"it could {what}")
        assert cache.cached("key", lambda: (b"", "built"), bytes.decode) == "built"

    before = sorted(folder.rglob("*"))
    return as_nobody(use) and sorted(folder.rglob("*")) == before


def main() -> None:
    """Run all and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10, help="kills of each kind")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    print(f"seed {options.seed}")
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as text:
        steps = kill_at_every_step(Path(text) / "model")
    print(f"model: killed at each of {steps} steps on the disk", flush=True)
    for kind in KINDS:
        print(f"{kind}: {kill_writers(kind, options.rounds, rng)} kills", flush=True)
    print(f"training: {kill_trainings(options.rounds, rng)} kills", flush=True)
    with tempfile.TemporaryDirectory() as text:
        for command in commands(Path(text)):
            moments, steps = kill_command(command, options.rounds, rng)
            print(
                f"{command.name}: {moments} kills at random moments, {steps} at random steps on "
                "the disk",
                flush=True,
            )
    with tempfile.TemporaryDirectory() as text:
        Path(text).chmod(0o755)
        assert check_permission_denied(Path(text))
    print("permission denied: refused with the reason", flush=True)
    for read_only in (False, True):
        done = on_small_disk(1 << 20, read_only, check_full_disk)
        what = "read-only" if read_only else "full"
        print(f"disk {what}: {'whole' if done else 'skipped, cannot mount'}", flush=True)


if __name__ == "__main__":
    main()
