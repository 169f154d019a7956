"""`python -m benchmarks.admission`: rate decisions a second with keys that churn, and what a verifier's work costs.

The log is the one of a verifier; keys come as an attacker would choose them, each new, or as some clients send them,
again and again. The second table takes a grant apart: what the verifier and a holder compute, each by itself.
"""

from __future__ import annotations

import statistics
import time
import tracemalloc
from random import Random
from typing import TYPE_CHECKING

from lockbox_node.core.admission import SlidingLog
from lockbox_node.core.grants import Needed, require_grants
from lockbox_node.core.paces import ATTEMPTS_MAX, WINDOW_S
from lockbox_node.core.spent import KEYS_MAX, SERVED_HERE, SHARE_MAX, Spent, use_of
from protocol.certificates import verify_grant
from protocol.grants import GrantRequest
from protocol.records import open_grant_request, parse, sign
from tests.fakes.granting import around, grant, network, verifier, wish
from tests.fakes.stripes import NOW_UNIX_S, AssetSigner, bytes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DECISIONS = 1_000_000
REPEATS = 5
SECONDS = 120.0  # that the decisions are spread over
OWNERS = 64


def decisions(keys: Sequence[bytes], owners: Sequence[bytes]) -> float:
    """Decisions a second over `keys` in turn."""
    log = SlidingLog(ATTEMPTS_MAX, WINDOW_S, KEYS_MAX, SHARE_MAX)
    step_s = SECONDS / len(keys)
    take, now = log.take, 0.0
    began = time.perf_counter()
    for number, key in enumerate(keys):
        now += step_s
        take(key, owners[number % OWNERS], now)
    return len(keys) / (time.perf_counter() - began)


def mib_of_log(keys: Sequence[bytes], owners: Sequence[bytes]) -> float:
    """What the log holds after a flood within its window."""
    tracemalloc.start()
    log = SlidingLog(ATTEMPTS_MAX, WINDOW_S, KEYS_MAX, SHARE_MAX)
    for number, key in enumerate(keys):
        log.take(key, owners[number % OWNERS], number * 1e-5)
    assert len(log) <= KEYS_MAX
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return held / 2**20


def microseconds(work: Callable[[], object], times: int = 300) -> float:
    """One call, on average."""
    began = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - began) / times * 1e6


def spread(values: Sequence[float], digits: int) -> str:
    """`median (min-max)`."""
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f}-{max(values):,.{digits}f})"


def parts_of_a_grant() -> dict[str, Callable[[], object]]:
    """Each step that a grant takes somewhere."""
    signer, requester, by = AssetSigner("asset"), bytes_of("client"), verifier(0)
    request = wish(signer, requester)
    asked = parse(request, GrantRequest)
    granted = [grant(verifier(number), request) for number in range(2)]
    seen = around(bytes_of("holder"), [verifier(number) for number in range(24)])
    root = network().root
    spent = Spent()

    def remember() -> None:
        use = use_of(SERVED_HERE, asked, requester, NOW_UNIX_S)
        spent.add(use)
        use.packed()

    return {
        "client: sign a request": lambda: sign(asked, signer),
        "verifier, holder: open a request": lambda: open_grant_request(request),
        "verifier: sign a grant": lambda: grant(by, request),
        "client: check a grant": lambda: verify_grant(root, granted[0]),
        "holder: judge two grants": lambda: require_grants(root, granted, asked, Needed(2, 2), seen, NOW_UNIX_S),
        "verifier, holder: remember a nonce": remember,
    }


def main() -> None:
    """Print both tables."""
    rng = Random(1)
    owners = [rng.randbytes(8) for _ in range(OWNERS)]
    churning = [rng.randbytes(16) for _ in range(DECISIONS)]
    few = [churning[number % 1000] for number in range(DECISIONS)]
    print(f"{DECISIONS:,} decisions over {SECONDS:.0f} s of log time, at most {KEYS_MAX:,} keys; {REPEATS} runs\n")
    print("| rate decisions | /s, median (min-max) |\n|---|---|")
    for name, keys in (("every key new", churning), ("1,000 keys in turn", few)):
        print(f"| {name} | {spread([decisions(keys, owners) for _ in range(REPEATS)], 0)} |", flush=True)
    print(f"\nThe log after {DECISIONS:,} new keys within its window: {mib_of_log(churning, owners):.1f} MiB\n")
    print("| of a grant | us, median (min-max) |\n|---|---|")
    for name, work in parts_of_a_grant().items():
        print(f"| {name} | {spread([microseconds(work) for _ in range(REPEATS)], 1)} |", flush=True)


if __name__ == "__main__":
    main()
