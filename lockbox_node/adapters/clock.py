"""Wall time and key bytes from the kernel.

`OsEntropy` reads /dev/urandom into the caller's buffer, so that no immutable copy of a key stays behind as with
`os.urandom`; it waits once, at construction, until the kernel's generator is seeded (random(7)).
"""

from __future__ import annotations

import os
import stat
import time
import weakref

from lockbox_node.errors import ConfigError

RANDOM_DEVICE = "/dev/urandom"


class SystemClock:
    """The WallClock port over the system's clock."""

    def now_unix_s(self) -> float:
        """Seconds since 1970, UTC."""
        return time.time()


class OsEntropy:
    """The Entropy port over the kernel's generator. ConfigError when the random device is not one."""

    def __init__(self) -> None:
        os.getrandom(1)  # blocks until the generator is seeded, which reads of the device do not
        try:
            device = os.open(RANDOM_DEVICE, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise ConfigError(f"{RANDOM_DEVICE} cannot be read: {error.strerror}", "mount /dev") from None
        self._device = device
        self.close = weakref.finalize(self, os.close, device)  # by itself with the last reference
        if not stat.S_ISCHR(os.fstat(device).st_mode):
            self.close()
            raise ConfigError(f"{RANDOM_DEVICE} is not the kernel's random device", "give this process a real /dev")

    def fill(self, buffer: bytearray | memoryview) -> None:
        """Overwrite the whole buffer with unpredictable bytes."""
        rest = memoryview(buffer)
        while rest:
            count = os.readv(self._device, [rest])
            assert count, "the kernel's generator never ends"
            rest = rest[count:]
