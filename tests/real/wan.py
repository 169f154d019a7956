"""A wide area network between namespaces: a process that holds every packet for as long as its way takes; root only.

Each namespace gets a TUN device, wan0; whatever is sent there comes to us, waits half the round trip between the two
places, and is written to the device of its destination. Packets of one way keep their order; what does not fit into
the queue is dropped, as a router does. `python -m tests.real.wan PLACE...` says "ready" and relays until it is ended.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import itertools
import os
import select
import struct
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lockbox_node.cli.delays import round_trip_ms
from tests.real import netns

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).parent.parent.parent
DEVICE, SUBNET = "wan0", "10.98.0"
PACKETS_MAX = 100_000
PACKET_BYTES_MAX = 65_536
STOP_S = 10.0

# linux/sched.h, linux/if_tun.h
CLONE_NEWNET, TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x40000000, 0x400454CA, 0x0001, 0x1000


def address_of(number: int) -> str:
    """Of namespace `number` in the wide area network."""
    return f"{SUBNET}.{number}"


@contextmanager
def relaying(places: Sequence[str]) -> Iterator[None]:
    """Namespace i stands in the i-th of these regions, as long as the block runs."""
    line = [sys.executable, "-m", "tests.real.wan", *places]
    with subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True) as relay:
        try:
            assert relay.stdout is not None
            assert relay.stdout.readline() == "ready\n"
            yield
        finally:
            relay.terminate()
            relay.wait(STOP_S)


def _device(number: int) -> int:
    """The descriptor of a new device in namespace `number`, with its address."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/self/ns/net") as ours, open(f"/run/netns/{netns.name_of(number)}") as theirs:
        assert libc.setns(theirs.fileno(), CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        try:
            device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH14x", DEVICE.encode(), IFF_TUN | IFF_NO_PI))
            for words in (f"addr add {address_of(number)}/24 dev {DEVICE}", f"link set {DEVICE} up txqueuelen 10000"):
                subprocess.run(["ip", *words.split()], check=True)
        finally:
            assert libc.setns(ours.fileno(), CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    return device


def relay(devices: Sequence[int], one_way_s: Sequence[Sequence[float]]) -> None:
    """For ever: `one_way_s[i][j]` from the i-th device to the j-th."""
    number_of = {device: number for number, device in enumerate(devices)}
    prefix = bytes(int(part) for part in SUBNET.split("."))
    under_way: list[tuple[float, int, int, bytes]] = []
    order = itertools.count()
    poll = select.epoll()
    for device in devices:
        poll.register(device, select.EPOLLIN)
    while True:
        now = time.monotonic()
        while under_way and under_way[0][0] <= now:
            _, _, target, packet = heapq.heappop(under_way)
            with suppress(BlockingIOError):
                os.write(devices[target], packet)
        wait_s = under_way[0][0] - time.monotonic() if under_way else -1
        for device, _ in poll.poll(max(0, wait_s) if under_way else None):
            source = number_of[device]
            with suppress(BlockingIOError):
                while True:
                    packet = os.read(device, PACKET_BYTES_MAX)
                    target = packet[19] - 1
                    if packet[0] >> 4 != 4 or packet[16:19] != prefix or not 0 <= target < len(devices):
                        continue
                    if len(under_way) < PACKETS_MAX:
                        due = time.monotonic() + one_way_s[source][target]
                        heapq.heappush(under_way, (due, next(order), target, packet))


def main() -> None:
    """Make the devices, then relay."""
    places = sys.argv[1:]
    devices = [_device(number) for number in range(1, len(places) + 1)]
    one_way_s = [[round_trip_ms(here, there) / 2000 for there in places] for here in places]
    print("ready", flush=True)
    relay(devices, one_way_s)


if __name__ == "__main__":
    main()
