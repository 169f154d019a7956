"""node.toml -> a frozen Config, and back.

Each machine owns its Params with defaults and checks; this module only composes them, reads strictly (an unknown key
or a wrong type is an error that names it) and writes the file that `lockbox-node init` leaves behind. Paths are
relative to the directory of the file. `config/node.toml` in the repository is `Config()` written out.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
import types
import typing
from dataclasses import dataclass, field

from lockbox_node.core.admission import AdmissionParams
from lockbox_node.core.audit_pace import AuditParams
from lockbox_node.core.clock_trust import ClockTrustParams
from lockbox_node.core.lookup import LookupParams
from lockbox_node.core.member_params import MembershipParams
from lockbox_node.core.reconcile import ReconcileParams
from lockbox_node.core.repair import GuardParams, RepairParams
from lockbox_node.core.routing_table import RoutingParams
from lockbox_node.core.scrub_pace import ScrubParams
from lockbox_node.core.sounding import MeasuringParams
from lockbox_node.core.storage_params import LeaseParams, StorageParams, StoreParams
from lockbox_node.errors import ConfigError

if typing.TYPE_CHECKING:
    from pathlib import Path

BOOTSTRAP_MAX = 64
RECORD_TEXT_MAX = 64  # characters of an address, a region, an operator in a NodeRecord: SPEC.md, Signed records
_UNROUTABLE = ("0.0.0.0", "::")  # noqa: S104  # what a node may listen on and nobody can dial


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """Who this node is and where it listens."""

    data_dir: str = "."
    network: str = "network/network.pem"
    region: str = ""
    operator: str = ""
    listen: str = "127.0.0.1:7420"
    advertise: str = ""  # host:port that others dial; empty = listen
    http: str = "127.0.0.1:7421"  # empty = no HTTP
    bootstrap: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("listen", "advertise", "http"):
            if getattr(self, name):
                host_port(getattr(self, name), f"node.{name}")
        for address in self.bootstrap:
            host_port(address, "node.bootstrap")
        if len(self.bootstrap) > BOOTSTRAP_MAX:
            raise ConfigError(f"node.bootstrap names {len(self.bootstrap)} addresses; at most {BOOTSTRAP_MAX} are used")
        for name in ("listen", "advertise", "region", "operator"):
            if len(getattr(self, name)) > RECORD_TEXT_MAX:
                raise ConfigError(f"node.{name} is longer than {RECORD_TEXT_MAX} characters", "give a shorter one")

    @property
    def advertised(self) -> str:
        """What others dial."""
        return self.advertise or self.listen

    def require_advertisable(self) -> None:
        """ConfigError when nobody could dial what a node that runs would advertise."""
        host, port = host_port(self.advertised, "node.advertise")
        if port == 0 or host in _UNROUTABLE:
            raise ConfigError(
                f"nobody can dial {self.advertised}, which this node would advertise",
                "set node.advertise to the HOST:PORT by which others reach it",
            )


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What is written to stderr. Never an asset, an address or a client."""

    level: str = "info"

    def __post_init__(self) -> None:
        if self.level not in ("debug", "info", "warning", "error"):
            raise ConfigError(f"log.level is {self.level!r}", "use debug, info, warning or error")


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that node.toml may say."""

    node: NodeSettings = field(default_factory=NodeSettings)
    log: LogSettings = field(default_factory=LogSettings)
    membership: MembershipParams = field(default_factory=MembershipParams)
    routing: RoutingParams = field(default_factory=RoutingParams)
    lookup: LookupParams = field(default_factory=LookupParams)
    repair: RepairParams = field(default_factory=RepairParams)
    reconcile: ReconcileParams = field(default_factory=ReconcileParams)
    guard: GuardParams = field(default_factory=GuardParams)
    store: StoreParams = field(default_factory=StoreParams)
    storage: StorageParams = field(default_factory=StorageParams)
    leases: LeaseParams = field(default_factory=LeaseParams)
    clock: ClockTrustParams = field(default_factory=ClockTrustParams)
    scrub: ScrubParams = field(default_factory=ScrubParams)
    audit: AuditParams = field(default_factory=AuditParams)
    measuring: MeasuringParams = field(default_factory=MeasuringParams)
    admission: AdmissionParams = field(default_factory=AdmissionParams)


def host_port(text: str, where: str) -> tuple[str, int]:
    """`"host:port"` taken apart; an IPv6 host stands in brackets. ConfigError that names `where`."""
    host, colon, port = text.rpartition(":")
    whole = port.isascii() and port.isdecimal() and len(port) <= 5  # int() of thousands of digits raises
    if not colon or not host or not whole or int(port) > 65535:
        raise ConfigError(f"{where} is {text!r}, which is not HOST:PORT", "for example 127.0.0.1:7420")
    return host.removeprefix("[").removesuffix("]"), int(port)


def load(path: Path) -> Config:
    """Read and check node.toml. ConfigError says which key is wrong and what it should be."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", "give the path of a node.toml") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}", "mend the line it names") from None
    return _section(Config, table, "")


def to_toml(config: Config) -> str:
    """`config` as the text of a node.toml, every key written out."""
    lines: list[str] = []
    for section in dataclasses.fields(config):
        lines += [f"[{section.name}]"]
        params = getattr(config, section.name)
        lines += [_line(key.name, getattr(params, key.name)) for key in dataclasses.fields(params)]
        lines += [""]
    return "\n".join(lines)


def _line(key: str, value: object) -> str:
    return f"# {key} is not set: the tier's own" if value is None else f"{key} = {_toml(value)}"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # TOML escapes what JSON does, and DEL
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return repr(value)


T = typing.TypeVar("T")


def _section(cls: type[T], table: dict[str, object], where: str) -> T:
    hints = typing.get_type_hints(cls)
    for key in table:
        if key not in hints:
            known = ", ".join(sorted(hints))
            raise ConfigError(f"{where}{key} is not a key of node.toml", f"known here: {known}")
    values = {key: _value(hints[key], table[key], f"{where}{key}") for key in table}
    return cls(**values)


def _value(kind: object, value: object, where: str) -> object:
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise ConfigError(f"{where} is not a section", f"write [{where}] and its keys below")
        return _section(kind, value, f"{where}.")
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ConfigError(f"{where} is not a list of strings", f'for example {where} = ["127.0.0.1:7420"]')
        return tuple(value)
    if types.NoneType in typing.get_args(kind):
        kind = next(inner for inner in typing.get_args(kind) if inner is not types.NoneType)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(kind, type) or type(value) is not kind:
        wanted = kind.__name__ if isinstance(kind, type) else str(kind)
        raise ConfigError(f"{where} is {value!r}, not of type {wanted}", f"give a value of type {wanted}")
    return value
