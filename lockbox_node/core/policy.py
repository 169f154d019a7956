"""What a network's policy may set, and who goes by it.

Nodes: `healing`, `hold-off`, `sweep`, `returning`, `guard`, `audit`, `client-quota`, which override what the node is
configured with, and `client-requests` and `client-bytes`, what one client may ask and move in a second at one node
(guests no more). Clients and nodes: `tiers`, those on offer (what stands is kept, whatever its tier), and `location`.
The authority: `ids-per-operator`, how many node ids it gives to one operator. Whoever signs a policy is told of a wrong
word (ConfigError); a setting that cannot be used is ignored by who obeys, since a later version may know more. Source:
DESIGN, sections 3, 6 and 9.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from lockbox_node.core.audit_pace import AuditParams
from lockbox_node.core.repair import GuardParams, RepairParams
from lockbox_node.core.tiers import TIERS, Tier, tier_named
from lockbox_node.errors import ConfigError, LockboxError, UsageError
from protocol.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Iterable

KNOWN = (
    "healing=on|off, hold-off=S, sweep=S, returning=S, guard=S, audit=S, location=claimed|measured, "
    "client-quota=BYTES, tiers=NAME,..., client-requests=N, client-bytes=N, ids-per-operator=N"
)
IDS_MAX = 20_000  # as many as there can be members
QUOTA_MAX = 10**15  # bytes that one client may keep at one node
RATE_MAX = 10**12  # requests or bytes a second
BYTES_RATE_MIN = 1024  # bytes a second: below it not even papers get through
_DIGITS = re.compile("[0-9]{1,16}")


@dataclass(frozen=True, slots=True)
class Governed:
    """The parameters that a policy has a say in."""

    repair: RepairParams = field(default_factory=RepairParams)
    guard: GuardParams = field(default_factory=GuardParams)
    audit: AuditParams = field(default_factory=AuditParams)
    client_quota_bytes: int | None = None  # at one node; None = as it is configured
    client_requests: float | None = None  # a second, of one client at one node; None = as it is configured
    client_bytes: float | None = None  # the same, in and out; None = no bound
    tiers: tuple[Tier, ...] = TIERS  # on offer
    ids_per_operator_max: int = IDS_MAX
    measured: bool = False  # nodes whose place is refuted hold nothing new

    def under(self, key: str, value: str) -> Governed:
        """With one setting applied. ConfigError when there is none such, or its value cannot be."""
        repair, guard = self.repair, self.guard
        match key:
            case "healing" if value in ("on", "off"):
                return replace(self, repair=replace(repair, enabled=value == "on"))
            case "hold-off":
                return replace(self, repair=replace(repair, hold_off_s=_seconds(key, value)))
            case "sweep":
                return replace(self, repair=replace(repair, sweep_s=_seconds(key, value)))
            case "returning":
                return replace(self, repair=replace(repair, return_hold_s=_seconds(key, value)))
            case "location" if value in ("claimed", "measured"):
                return replace(self, measured=value == "measured")
            case "guard":
                return replace(self, guard=replace(guard, quiet_s=_seconds(key, value)))
            case "audit":
                return replace(self, audit=replace(self.audit, period_s=_seconds(key, value)))
            case "tiers":
                return replace(self, tiers=_tiers(value))
            case "client-quota" if _DIGITS.fullmatch(value) and int(value) <= QUOTA_MAX:
                return replace(self, client_quota_bytes=int(value))
            case "client-requests" if _DIGITS.fullmatch(value) and 1 <= int(value) <= RATE_MAX:
                return replace(self, client_requests=float(value))
            case "client-bytes" if _DIGITS.fullmatch(value) and BYTES_RATE_MIN <= int(value) <= RATE_MAX:
                return replace(self, client_bytes=float(value))
            case "ids-per-operator" if _DIGITS.fullmatch(value) and 1 <= int(value) <= IDS_MAX:
                return replace(self, ids_per_operator_max=int(value))
        raise ConfigError(f"{key}={value} is not a policy", KNOWN)

    def under_all(self, settings: Iterable[tuple[str, str]]) -> tuple[Governed, list[str]]:
        """With all settings applied that can be, and the keys of the others."""
        governed, ignored = self, []
        for key, value in settings:
            try:
                governed = governed.under(key, value)
            except ConfigError:
                ignored.append(key)
        return governed, ignored

    def check_offer(self, tier: Tier) -> None:
        """LockboxError TIER_VIOLATION when nothing new may be locked in this tier."""
        if tier not in self.tiers:
            raise LockboxError(
                f"{tier.name} is not on offer in this network",
                f"choose one of {', '.join(tier.name for tier in self.tiers)}",
                ErrorCode.TIER_VIOLATION,
            )


def _tiers(value: str) -> tuple[Tier, ...]:
    try:
        named = {tier_named(name) for name in value.split(",")}
    except UsageError as error:
        raise ConfigError(f"tiers={value}: {error.message}", error.hint) from None
    return tuple(tier for tier in TIERS if tier in named)


def _seconds(key: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ConfigError(f"{key}={value}: {value!r} is not a number of seconds", KNOWN) from None
