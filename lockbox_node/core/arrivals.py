"""How often one place may come to the port: a token bucket per IPv4 address or IPv6 /48, asked before any TLS work.

A handshake costs us a signature before we know who asks for it. The bound is far above what a hundred nodes behind one
address need, and bounded in memory: above `sources_max` the place that came longest ago is forgotten, which gives an
attacker with so many places no more than they give by themselves. All times are passed in.
"""

from __future__ import annotations

from collections import OrderedDict

from lockbox_node.core.admission import Bucket
from lockbox_node.core.origins import SITE_BITS, origin_of

SOURCES_MAX = 16_384


class Arrivals:
    """Who came lately. `now` never falls."""

    def __init__(self, rate: float, burst: float, sources_max: int = SOURCES_MAX) -> None:
        self._rate, self._burst, self._sources_max = rate, burst, sources_max
        self._buckets: OrderedDict[bytes, Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, host: str, now: float) -> float:
        """0.0 when `host` may in; else the seconds until its place may again."""
        origin = origin_of(host, SITE_BITS)
        bucket = self._buckets.get(origin)
        if bucket is None:
            bucket = self._buckets[origin] = Bucket(self._rate, self._burst, now)
            if len(self._buckets) > self._sources_max:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(origin)
        return bucket.take(now)
