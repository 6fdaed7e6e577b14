"""``make faults ROUNDS=10``: processes killed at random moments, disks that are full or read-only.

    python -m campaigns.faults --rounds 10 --seed 1

What stands in a file afterwards must be whole: the old or the new. A training that was killed and
resumed any number of times has every step in its log once. The faults of the node (out of memory,
threads that raise, a process that stands still, time that jumps, models that change) are tests,
in test/ros/test_faults.py.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from campaigns.kills import KINDS, kill_at_every_step, kill_training, kill_writers


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
    print(f"training: {kill_training(options.rounds, rng)} kills", flush=True)
    for read_only in (False, True):
        done = on_small_disk(1 << 20, read_only, check_full_disk)
        what = "read-only" if read_only else "full"
        print(f"disk {what}: {'whole' if done else 'skipped, cannot mount'}", flush=True)


if __name__ == "__main__":
    main()
