"""The times and limits of the membership machine."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lockbox_node.errors import ConfigError


@dataclass(frozen=True, slots=True)
class MembershipParams:
    """Times in seconds; `neighbours` are watched in turn, `fan_out` partners hear each rumour at a time."""

    neighbours: int = 16
    acquaintances: int = 8  # random members that hear rumours beside the neighbours
    probe_interval_s: float = 1.0
    probe_timeout_s: float = 0.5  # at least: a slow link gets more
    probe_timeout_max_s: float = 5.0
    probe_relays: int = 3  # through whom a node that does not answer is asked again
    health_max: int = 4  # so many times longer a node waits at most that finds itself slow
    suspicion_min_s: float = 5.0
    suspicion_factor_s: float = 4.0  # times log10(members + 1)
    gossip_interval_s: float = 0.25
    fan_out: int = 3
    retransmit_factor: float = 6.0  # times log10(members + 1): to how many we pass on one rumour
    updates_max: int = 32  # rumours in one message: with records about 53 kB
    push_pull_interval_s: float = 30.0
    stall_s: float = 2.0  # later than this by our own fault: suspicions start again
    members_max: int = 20_000
    dead_kept_s: float = 86_400.0

    def __post_init__(self) -> None:
        for name in ("neighbours", "acquaintances", "fan_out", "updates_max", "members_max"):
            if getattr(self, name) < 1:
                raise ConfigError(f"membership.{name} must be at least 1")
        for name in ("probe_relays", "health_max"):
            if getattr(self, name) < 0:
                raise ConfigError(f"membership.{name} must not be negative")
        if not self.probe_timeout_s <= self.probe_timeout_max_s < math.inf:
            raise ConfigError("membership.probe_timeout_max_s must be at least probe_timeout_s")
        for name in ("probe_interval_s", "probe_timeout_s", "gossip_interval_s", "push_pull_interval_s", "stall_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"membership.{name} must be above 0")
        for name in ("suspicion_min_s", "suspicion_factor_s", "retransmit_factor", "dead_kept_s"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"membership.{name} must not be negative")

    def suspicion_s(self, members: int) -> float:
        """How long a suspect may refute, in a network of `members`."""
        return max(self.suspicion_min_s, self.suspicion_factor_s * math.log10(members + 1))

    def transmissions(self, members: int) -> int:
        """To how many partners one member passes on one rumour, at least."""
        return max(1, math.ceil(self.retransmit_factor * math.log10(members + 1)))
