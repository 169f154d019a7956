"""Where a peer comes from, for limits that are counted by place: the part of its address that one customer is given.

An IPv4 address is one place. Of IPv6 everybody has at least a /64 and may take any address in it, so that is one place;
a site has a /48. An IPv4 address written as IPv6 (RFC 4291, section 2.5.5.2) is the IPv4 address. A name stays a name.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

HOST_BITS = 64  # of an IPv6 address: what tells hosts apart
SITE_BITS = 48  # of an IPv6 address: what tells customers of a provider apart
KEPT_MAX = 8192


@lru_cache(KEPT_MAX)
def origin_of(host: str, ipv6_bits: int = HOST_BITS) -> bytes:
    """Equal for two hosts of one place, else distinct."""
    try:
        address: IPv4Address | IPv6Address = ip_address(host)
    except ValueError:
        return b"n" + host.encode()
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is None:
            return b"6" + address.packed[: ipv6_bits // 8]
        address = address.ipv4_mapped
    return b"4" + address.packed
