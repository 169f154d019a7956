"""How many small durable writes a second this disk takes: the bound of every acknowledgement.

One process appends 600 bytes and calls fdatasync, in turn, into one growing file: what one group commit costs
at least. Quote it next to the product's figures, from the same run: disks of virtual machines change by the minute.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

APPEND_BYTES = 600


def fdatasyncs_per_second(directory: Path, seconds: float = 1.0) -> float:
    """Serial append-and-fdatasync rounds a second in `directory`, measured for `seconds`."""
    descriptor, name = tempfile.mkstemp(dir=directory, prefix="fdatasync-")
    block = bytes(APPEND_BYTES)
    try:
        started = time.perf_counter()
        rounds = 0
        while (spent := time.perf_counter() - started) < seconds:
            os.write(descriptor, block)
            os.fdatasync(descriptor)
            rounds += 1
        return rounds / spent
    finally:
        os.close(descriptor)
        Path(name).unlink()


if __name__ == "__main__":
    print(f"{fdatasyncs_per_second(Path.cwd()):.0f} fdatasync/s in {Path.cwd()}")
