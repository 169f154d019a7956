"""The Network of a test network's daemon: TCP of which the kernel drops what comes from chosen hosts.

A filter on each socket (SO_ATTACH_FILTER, socket(7); no root is needed) looks at the source of every segment before
TCP sees it: no ACK, no FIN, no RST. So connections stall and go on with a retransmission, and new dials hang until they
time out, as with a cable cut. Both sides of a partition filter; whoever is not ours, a client, is only not heard.
Nodes are told apart by address, so each dials from the one that it listens on.

Nothing of this is in TcpNetwork, in node.toml or on the wire: a daemon has it only when it was started with
`--parting FILE`, as `lockbox-testnet` starts them, and it refuses to listen anywhere but on a loopback address.
FILE holds a JSON object {our host: [hosts to drop]}, read at the start and whenever the control socket says so; no file
means that nobody is dropped.
"""

from __future__ import annotations

import ctypes
import ipaddress
import json
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakSet

import trio

from lockbox_node.adapters.tcp import TcpNetwork, TcpStream
from lockbox_node.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from lockbox_node.adapters.tcp import TlsContexts

LOOPBACK = ipaddress.ip_network("127.0.0.0/8")
HOSTS_MAX = 254  # a jump of the filter spans 255 instructions

# linux/filter.h; asm-generic/socket.h
SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27
LOAD_WORD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
SOURCE_ADDRESS = 0xFFF00000 + 12  # SKF_NET_OFF, then the offset in the IPv4 header
WHOLE, NOTHING = 0xFFFFFFFF, 0


class _Socket(Protocol):
    def fileno(self) -> int:
        """The descriptor, -1 once it is closed."""
        ...


class PartedNetwork(TcpNetwork):
    """A TcpNetwork on an IPv4 loopback address that hears nothing from the hosts that `orders` names."""

    def __init__(self, contexts: TlsContexts, host: str, port: int, orders: Path) -> None:
        """ConfigError where no test network can be."""
        super().__init__(contexts, host, port)
        if not _is_loopback(host):
            raise ConfigError(
                f"only test networks are parted or delayed, and {host} is no loopback address", "leave it out"
            )
        self._orders = orders
        self._sockets: WeakSet[_Socket] = WeakSet()  # the listener, dials under way, streams
        self.dropped: tuple[str, ...] = ()
        self.obey()

    def obey(self) -> None:
        """Read the orders and filter every socket by them. ConfigError when they cannot be read."""
        self.dropped = _read(self._orders, self._host)
        for sock in list(self._sockets):
            _filter(sock, self.dropped)

    async def verb(self, _request: dict[str, Any]) -> object:
        """The word of the control socket: obey anew."""
        await trio.lowlevel.checkpoint()
        self.obey()
        return {"dropped": list(self.dropped)}

    async def dial(self, host: str, port: int) -> TcpStream:
        """As TcpNetwork."""
        stream = await super().dial(host, port)
        self._add(stream)
        return stream

    async def _shake_hands(self, sock: socket.socket, host: str) -> TcpStream | None:
        stream = await super()._shake_hands(sock, host)
        if stream is not None:
            self._add(stream)
        return stream

    async def _connected(self, host: str, port: int) -> socket.socket:
        plain = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            plain.bind((self._host, 0))
            self._add(plain)  # before the SYN goes out, so that a cut keeps the answer away
            await trio.socket.from_stdlib_socket(plain).connect((host, port))
        except BaseException:
            plain.close()
            raise
        return plain

    async def _listening(self) -> socket.socket:
        listener = await super()._listening()
        self._add(listener)  # what it accepts inherits the filter
        return listener

    def _add(self, sock: _Socket) -> None:
        self._sockets.add(sock)
        _filter(sock, self.dropped)


def program_of(hosts: Collection[str]) -> list[tuple[int, int, int, int]]:
    """The filter that drops segments from `hosts`: (code, jump if true, jump if false, operand) each."""
    assert len(hosts) <= HOSTS_MAX
    addresses = [int(ipaddress.IPv4Address(host)) for host in hosts]
    compared = [(JUMP_IF_EQUAL, len(addresses) - i, 0, address) for i, address in enumerate(addresses)]
    return [(LOAD_WORD, 0, 0, SOURCE_ADDRESS), *compared, (RETURN, 0, 0, WHOLE), (RETURN, 0, 0, NOTHING)]


def _filter(sock: _Socket, hosts: Collection[str]) -> None:
    if sock.fileno() < 0:
        return
    borrowed = socket.socket(fileno=sock.fileno())
    try:
        if borrowed.family != socket.AF_INET:
            pass  # inside of this process: the socket that it speaks for is filtered itself
        elif hosts:
            program = program_of(hosts)
            code = b"".join(struct.pack("HBBI", *step) for step in program)
            held = ctypes.create_string_buffer(code, len(code))
            where = struct.pack("HP", len(program), ctypes.addressof(held))
            borrowed.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, where)
        else:
            with suppress(FileNotFoundError):  # there is none
                borrowed.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
    finally:
        borrowed.detach()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host) in LOOPBACK
    except ValueError:
        return False


def _read(orders: Path, host: str) -> tuple[str, ...]:
    wrong = ConfigError(f"{orders} does not say who is cut off", "it is written by lockbox-testnet, for its daemons")
    try:
        said = json.loads(orders.read_text(encoding="utf-8"))
        hosts = tuple(sorted(set(said.get(host, []))))
        if len(hosts) <= HOSTS_MAX and all(_is_loopback(one) for one in hosts):
            return hosts
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, AttributeError, TypeError):
        raise wrong from None
    raise wrong
