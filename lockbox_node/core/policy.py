"""What a network's policy may set in its nodes: `healing`, `hold-off`, `sweep`, `guard`.

A setting overrides what the node is configured with. Whoever signs a policy is told of a wrong word (ConfigError); a
node ignores a setting that it cannot use, since a later version may know more. Source: DESIGN, section 9.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from lockbox_node.core.repair import GuardParams, RepairParams
from lockbox_node.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

KNOWN = "healing=on|off, hold-off=S, sweep=S, guard=S"


@dataclass(frozen=True, slots=True)
class Governed:
    """The parameters that a policy has a say in."""

    repair: RepairParams = field(default_factory=RepairParams)
    guard: GuardParams = field(default_factory=GuardParams)

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
            case "guard":
                return replace(self, guard=replace(guard, quiet_s=_seconds(key, value)))
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


def _seconds(key: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ConfigError(f"{key}={value}: {value!r} is not a number of seconds", KNOWN) from None
