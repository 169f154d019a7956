"""The store against a dictionary: puts, replacements, stale puts, deletes, reads, rests, restarts, power losses.

The dictionary knows the rules of an address by itself (the docstring of the port), not from the code under test.
"""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from lockbox_node.errors import LockboxError, RequestRefused, ShardMissing
from lockbox_node.ports import PutOutcome, SlotView
from protocol.messages import SIBLINGS_MAX
from protocol.records import open_tombstone
from tests.adapters.store_workload import BIG, damage_of, empty
from tests.fakes.disk_log import PowerLoss
from tests.fakes.recording_disk import RecordingDisk
from tests.fakes.recording_vfs import recording_vfs
from tests.fakes.stepped_store import SteppedStore, put_of
from tests.fakes.stripes import Stripe, make_stripe

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.disk_log import DiskLog

pytestmark = pytest.mark.real
ASSETS = 4
VERSIONS = 4


@cache
def stripe_of(asset: int, version: int, salt: int, large: bool) -> Stripe:
    """One of the few stripes of this test."""
    return make_stripe(asset, version=version, salt=(salt, large), **(BIG if large else {}))


@dataclass(frozen=True)
class Wanted:
    """A put: which stripe, and whether it replaces all lower versions that stand."""

    asset: int
    version: int
    salt: int
    large: bool
    replaces: bool

    @property
    def stripe(self) -> Stripe:
        """What is put."""
        return stripe_of(self.asset, self.version, self.salt, self.large)


@dataclass
class Slot:
    """What stands at one address: stripes by descriptor hash, and the version of the tombstone."""

    stripes: dict[bytes, Stripe] = field(default_factory=dict)
    tombstone: int = 0

    def copy(self) -> Slot:
        """As it is now."""
        return Slot(dict(self.stripes), self.tombstone)

    def lower(self, version: int) -> list[bytes]:
        """The hashes below a version."""
        return [digest for digest, stripe in self.stripes.items() if stripe.descriptor.version < version]

    def put(self, wanted: Wanted) -> bool:
        """Whether the put is to be taken; then it stands."""
        digest = bytes(wanted.stripe.parts[0].descriptor_hash)
        if wanted.version <= self.tombstone:
            return False
        if digest in self.stripes:
            return True
        if any(stripe.descriptor.version > wanted.version for stripe in self.stripes.values()):
            return False
        gone = self.lower(wanted.version) if wanted.replaces else []
        if len(self.stripes) - len(gone) >= SIBLINGS_MAX:
            return False
        for other in gone:
            del self.stripes[other]
        self.stripes[digest] = wanted.stripe
        return True

    def delete(self, version: int) -> None:
        """Bury all up to a version; an older tombstone changes nothing."""
        if version > self.tombstone:
            self.tombstone = version
            kept = {key: stripe for key, stripe in self.stripes.items() if stripe.descriptor.version > version}
            self.stripes = kept


ASSET = st.integers(0, ASSETS - 1)
VERSION = st.integers(1, VERSIONS)
WANTED = st.builds(Wanted, ASSET, VERSION, st.integers(0, 2), st.booleans(), st.booleans())
GROUP = st.lists(WANTED, min_size=1, max_size=4, unique_by=lambda wanted: wanted.asset)
SEED = st.integers(0, 2**32)


class StoreMachine(RuleBasedStateMachine):
    """A store on a recorded disk, and the dictionary."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.slots = {asset: Slot() for asset in range(ASSETS)}
        self.life = contextlib.ExitStack()
        self.vfs = self.life.enter_context(recording_vfs())
        self.data_dir, self.other_dir = root / "a", root / "b"
        empty(self.data_dir)
        self.session = contextlib.ExitStack()
        self.log: DiskLog
        self.store: SteppedStore

    @initialize()
    def open(self) -> None:
        """Begin a session on what stands in the directory."""
        self.log = self.session.enter_context(self.vfs.recording(self.data_dir))
        self.store = SteppedStore(self.data_dir, disk=RecordingDisk(self.log))

    def teardown(self) -> None:
        """End of the example."""
        if hasattr(self, "store"):
            self.compare()
            self.store.close()
        self.session.close()
        self.life.close()

    @rule(group=GROUP)
    def put(self, group: list[Wanted]) -> None:
        """Puts that share a transaction."""
        expected = [self.slots[wanted.asset].put(wanted) for wanted in group]
        answers = self._ask(group)
        assert [isinstance(answer, PutOutcome) for answer in answers] == expected
        assert all(isinstance(answer, PutOutcome | RequestRefused) for answer in answers)

    @rule(asset=ASSET, version=VERSION)
    def delete(self, asset: int, version: int) -> None:
        """Delete all up to a version."""
        part, signer = stripe_of(asset, 1, 0, False).parts[0], stripe_of(asset, 1, 0, False).signer
        assert self.store.delete(signer.tombstone(version), part, version) is None
        self.slots[asset].delete(version)

    @rule(wanted=WANTED)
    def get(self, wanted: Wanted) -> None:
        """A part that stands, or does not."""
        part = wanted.stripe.parts[0]
        answer = self.store.get(part)
        if part.descriptor_hash in self.slots[wanted.asset].stripes:
            assert answer == part
        else:
            assert isinstance(answer, ShardMissing)

    @rule()
    def rest(self) -> None:
        """A quiet moment: files are removed, the WAL is emptied."""
        self.store.rest()

    @rule()
    def reopen(self) -> None:
        """A clean restart."""
        self.store.close()
        self.session.close()
        self.open()
        self.compare()

    @rule(seed=SEED)
    def crash(self, seed: int) -> None:
        """The power fails while nothing is asked for."""
        self._lose_power(len(self.log.events), random.Random(seed))
        self.compare()

    @rule(group=GROUP, seed=SEED)
    def crash_while_putting(self, group: list[Wanted], seed: int) -> None:
        """The power fails before the answers: each put is there or not at all."""
        rng, start = random.Random(seed), len(self.log.events)
        may = {wanted.asset: [self.slots[wanted.asset], self.slots[wanted.asset].copy()] for wanted in group}
        for wanted in group:
            may[wanted.asset][1].put(wanted)
        self._ask(group)
        self._lose_power(rng.randint(start, len(self.log.events)), rng)
        for asset, states in may.items():
            seen = self._seen(asset)
            self.slots[asset] = next((state for state in states if state == seen), states[0])
        self.compare()

    def compare(self) -> None:
        """Everything that stands, and nothing else."""
        for asset, slot in self.slots.items():
            assert self._seen(asset) == slot
            for stripe in slot.stripes.values():
                assert self.store.get(stripe.parts[0]) == stripe.parts[0]
        assert self.store.store.figures().stripes == sum(len(slot.stripes) for slot in self.slots.values())
        self.store.rest()
        assert damage_of(self.data_dir) == []
        assert self.store.store.broken == ""

    def _ask(self, group: list[Wanted]) -> list[PutOutcome | LockboxError]:
        starts = []
        for wanted in group:
            lower = [one for one in _all_of(wanted.asset) if one.descriptor.version < wanted.version]
            replaces = [one.parts[0].descriptor_hash for one in lower] if wanted.replaces else []
            starts.append(partial(put_of, self.store.store, wanted.stripe.parts[0], replaces))
        return self.store.ask_all(starts)

    def _seen(self, asset: int) -> Slot:
        view = self.store.look(stripe_of(asset, 1, 0, False).parts[0])
        assert isinstance(view, SlotView)
        found = {
            bytes(part.descriptor_hash): stripe
            for part in view.parts
            for stripe in _all_of(asset)
            if stripe.parts[0].descriptor_hash == part.descriptor_hash
        }
        assert len(found) == len(view.parts)
        return Slot(found, 0 if view.tombstone is None else open_tombstone(view.tombstone).version)

    def _lose_power(self, cut: int, rng: random.Random) -> None:
        power = PowerLoss(self.log)
        power.advance(cut)
        self.store.close()
        self.session.close()
        empty(self.other_dir)
        power.leave(self.other_dir, rng)
        self.data_dir, self.other_dir = self.other_dir, self.data_dir
        self.open()


@cache
def _all_of(asset: int) -> list[Stripe]:
    return [
        stripe_of(asset, version, salt, large)
        for version in range(1, VERSIONS + 1)
        for salt in range(3)
        for large in (False, True)
    ]


@pytest.mark.parametrize(
    ("examples", "steps"), [(50, 25), pytest.param(300, 60, marks=pytest.mark.long)], ids=["short", "long"]
)
def test_the_store_is_the_dictionary(ram_path: Path, examples: int, steps: int) -> None:
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    factory: Any = partial(StoreMachine, ram_path)  # hypothesis calls it, whatever its annotation says
    run_state_machine_as_test(
        factory,
        settings=settings(max_examples=examples, stateful_step_count=steps, suppress_health_check=checks),
    )
