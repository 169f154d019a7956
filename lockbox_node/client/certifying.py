"""A possession certificate for an asset of ours: statements of a quorum of verifiers about every stripe, in one file.

The verifiers of a stripe are those that are asked for grants, as many as the tier names; the next candidate is asked
when one refuses, lies or is silent. All that were asked are waited for: who does not look is soon done, so the first
answers are no better than the last. What they say is checked as a stranger will check it, before it is kept. Source:
SPEC.md, Possession certificates.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from lockbox_node.client.chance import fresh
from lockbox_node.client.granting import verifiers_near
from lockbox_node.client.replies import Replies
from lockbox_node.client.standing import Standing, check_presence
from lockbox_node.client.stripes import key_of_stripe
from lockbox_node.core.certified import Examined, examined, votes
from lockbox_node.core.derivation import access
from lockbox_node.core.grants import is_quorum, target_of
from lockbox_node.core.manifest import open_slots, plan_of
from lockbox_node.core.paces import WINDOW_S
from lockbox_node.core.possession import Witness, asked, witnessed
from lockbox_node.errors import ExitCode, LockboxError, PeerUnreachable
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.messages import NUMBERS, Prove, Signed
from protocol.possession import (
    NOTHING,
    STATEMENTS_MAX,
    STRIPES_MAX,
    AskAudit,
    AuditRequest,
    Certificate,
    Evidence,
    Place,
)
from protocol.possession_file import sealed
from protocol.records import sign

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lockbox_node.client.members import Member
    from lockbox_node.client.replies import Outcome
    from lockbox_node.client.standing import Slot
    from lockbox_node.client.vault import Vault
    from lockbox_node.client.wallet import AssetEntry
    from lockbox_node.core.derivation import AssetKey
    from lockbox_node.rpc.pool import Posted

WINDOW_STRIPES = 3  # looked at at the same time
ID_BYTES = 32
NONCE_BYTES = 16
NODES_PER_INDEX = 2


@dataclass(frozen=True, slots=True)
class CertifyResult:
    """A certificate that holds: its file, and what it proves."""

    file: bytes
    examined: Examined

    @property
    def exit_code(self) -> ExitCode:
        """0 when a quorum saw every index of every stripe held, else 8."""
        return ExitCode.DONE if self.examined.whole else ExitCode.DEGRADED


async def certify(vault: Vault, asset: AssetEntry, previous: bytes = NOTHING) -> CertifyResult:
    """Have every stripe looked at by a quorum. `previous` = the digest of an earlier certificate of this asset.

    AssetNotFound, PeerUnreachable; RATE_LIMITED or what the verifiers answered when no quorum of them states anything.
    """
    await vault.refresh()
    with key_of_stripe(vault.wallet.master, asset.index, b"", 0) as key:
        standing = Standing(vault, key)
        await standing.ask(asset)
        slot = next(iter(standing.slots_of(asset)), None)
        if slot is None:
            check_presence(standing.presence)
            raise _nothing_shown(0)
        manifest = open_slots(slot.slots, vault.wallet.master, key.address, slot.descriptor.version)
        count = plan_of(manifest).stripes
        if count > STRIPES_MAX:
            raise LockboxError(
                f"the asset has {count} stripes, a certificate at most {STRIPES_MAX}", code=ErrorCode.TOO_LARGE
            )
        drawn = bytes(fresh(ID_BYTES, vault.entropy))
        work = _Work(vault, asset, manifest.asset_salt, drawn, count, previous)
        evidence = [await work.evidence(0, key, slot), *await work.others()]
        file = sealed(Certificate(vault.local.root.network_id, evidence), key.public_key, key)
    return CertifyResult(file, examined(vault.local.root, file))


@dataclass(frozen=True, slots=True)
class _Work:
    """What the stripes of one certificate share."""

    vault: Vault
    asset: AssetEntry
    asset_salt: bytes
    certificate: bytes
    stripes: int
    previous: bytes

    async def others(self) -> list[Evidence]:
        """Of every stripe but the first, in order."""
        numbers = iter(range(1, self.stripes))
        found: dict[int, Evidence] = {}
        failures: list[LockboxError] = []

        async def some(scope: trio.CancelScope) -> None:
            try:
                for number in numbers:
                    found[number] = await self._other(number)
            except LockboxError as error:
                failures.append(error)
                scope.cancel()

        async with trio.open_nursery() as nursery:
            for _ in range(WINDOW_STRIPES):
                nursery.start_soon(some, nursery.cancel_scope)
        if failures:
            raise failures[0]
        return [found[number] for number in range(1, self.stripes)]

    async def _other(self, number: int) -> Evidence:
        with key_of_stripe(self.vault.wallet.master, self.asset.index, self.asset_salt, number) as key:
            standing = Standing(self.vault, key)
            await standing.ask()
            slot = next(iter(standing.slots), None)
            if slot is None:
                raise _nothing_shown(number)
            return await self.evidence(number, key, slot)

    async def evidence(self, number: int, key: AssetKey, slot: Slot) -> Evidence:
        """Of one stripe."""
        await self.vault.approach(target_of(key.address))
        request = AuditRequest(
            public_key=key.public_key,
            descriptor_hash=slot.table.descriptor_hash,
            requester=self.vault.own_id,
            nonce=bytes(fresh(ID_BYTES, self.vault.entropy)),
            time_unix_s=int(self.vault.now_unix_s()),
            places=_places(self.vault, slot),
            certificate=self.certificate,
            stripe=number,
            stripes=self.stripes,
            previous=self.previous,
        )
        signed = sign(request, key)
        inquiry = _Inquiry(self.vault, key, signed, slot)
        try:
            return Evidence(signed, slot.signed, await inquiry.statements())
        finally:
            inquiry.forget()


def _places(vault: Vault, slot: Slot) -> list[Place]:
    """Whom to have challenged: of every index the nodes most likely to hold it, those that said so just now first."""
    now, by_index = trio.current_time(), defaultdict[int, list[tuple[tuple[bool, bool, int], bytes]]](list)
    for (index, node), sequence in slot.table.holders.items():
        rank = (slot.shown_by.get(node) != index, not vault.members.is_live(node, now), -sequence)
        if index < slot.descriptor.n:
            by_index[index].append((rank, node))
    chosen = [(index, node) for index, nodes in by_index.items() for _, node in sorted(nodes)[:NODES_PER_INDEX]]
    return [Place(index, node) for index, node in sorted(chosen)]


class _Asked:
    """One verifier that was asked, and until when nobody is asked in its place."""

    def __init__(self, member: Member, late_at: float) -> None:
        self.member = member
        self.late_at = late_at
        self.posted: Posted | None = None


class _Inquiry:
    """Asks the verifiers of one stripe."""

    def __init__(self, vault: Vault, key: AssetKey, request: Signed, slot: Slot) -> None:
        self._vault, self._key, self._request, self._descriptor = vault, key, request, slot.signed
        self._audit = asked(request, slot.signed)
        self._tier = self._audit.tier
        holders = {node for _, node in slot.table.holders}
        self._waiting = deque(verifiers_near(vault, key.address, holders))
        self._pending: list[_Asked] = []
        self._replies: Replies[_Asked] = Replies()
        self._found: list[tuple[Witness, Signed]] = []
        self._refusals: list[LockboxError] = []
        self._owed = 0  # verifiers that say "too often" and are not replaced yet

    async def statements(self) -> list[Signed]:
        """Those of as many verifiers as the tier has, and of a quorum at least, of distinct operators; else why not."""
        deadline = trio.current_time() + self._vault.params.audit_s
        self._ask(self._tier.verifiers)
        while self._pending and trio.current_time() < deadline:
            late_at = min(one.late_at for one in self._pending)
            for one, outcome in await self._replies.take(min(deadline, late_at)):
                self._judge(one, outcome)
            self._hedge()
            if len(self._found) >= self._tier.verifiers and self._settled:
                break
        if not self._enough:
            raise self._too_few()
        return [signed for _, signed in self._found]

    def forget(self) -> None:
        """Nobody waits for what is still under way."""
        for one in self._pending:
            if one.posted is not None:
                one.posted.forget()
        self._pending.clear()

    @property
    def _enough(self) -> bool:
        return is_quorum([witness.signer.operator for witness, _ in self._found], self._tier.quorum)

    @property
    def _settled(self) -> bool:
        """A quorum, and no index is in doubt only because one that was asked holds it, and so says nothing of it."""
        counted = votes(self._audit, [witness for witness, _ in self._found])
        operators = _operators(witness for witness, _ in self._found)
        quorum, most = self._tier.quorum, min(self._tier.verifiers, operators)
        doubtful = [one for one in counted if one.held_by < quorum and 0 < one.verifiers < most]
        return self._enough and not doubtful

    @property
    def _is_limit(self) -> bool:
        """Whether "too often" is believed: all that the tier names say so, and nobody states anything. Some may lie."""
        return not self._found and len(self._limited) >= self._tier.verifiers

    @property
    def _limited(self) -> list[LockboxError]:
        return [error for error in self._refusals if error.code is ErrorCode.RATE_LIMITED]

    def _ask(self, count: int) -> None:
        vault = self._vault
        while count > 0 and self._waiting and len(self._pending) + len(self._found) < STATEMENTS_MAX:
            member = vault.members.get(self._waiting.popleft().node)
            if member is None or not vault.members.verify(member.record.node):
                continue
            count -= 1
            one = _Asked(member, trio.current_time() + vault.params.hedge_audit_s)
            self._pending.append(one)
            nonce, now_unix_s = bytes(fresh(NONCE_BYTES, vault.entropy)), int(vault.now_unix_s())
            leave = access(self._key, NUMBERS[Prove], member.record.node, nonce, now_unix_s)
            question = AskAudit(self._request, self._descriptor, leave)
            one.posted = vault.post(member, question, self._replies.answer_to(one))

    def _hedge(self) -> None:
        now = trio.current_time()
        if self._owed and self._found:  # it cannot be the asset's limit
            self._ask(self._owed)
            self._owed = 0
        for one in self._pending:
            if one.late_at <= now:
                one.late_at = float("inf")
                self._ask(1)
                return
        if not self._pending and not self._is_limit and not self._settled:
            self._ask(1)  # several of one operator, or one of them is a holder: somebody else is needed

    def _judge(self, one: _Asked, outcome: Outcome) -> None:
        if one not in self._pending:
            return
        self._pending.remove(one)
        if isinstance(outcome, Signed):
            refusal = self._take(one.member, outcome)
            if refusal is None:
                return
            self._vault.shun(one.member.record.node)
        else:
            assert isinstance(outcome, LockboxError)
            refusal = outcome
        self._refusals.append(refusal)
        if one.late_at == float("inf"):
            return
        if refusal.code is ErrorCode.RATE_LIMITED:
            self._owed += 1
        else:
            self._ask(1)

    def _take(self, member: Member, signed: Signed) -> LockboxError | None:
        """Keep a statement that a stranger will believe; else what is wrong with it."""
        try:
            witness = witnessed(self._vault.local.root, self._audit, signed)
        except RemoteProtocolError as error:
            return LockboxError(str(error), code=error.code)
        if witness.signer.id != member.record.node:
            return LockboxError("a verifier shows the statement of another", code=ErrorCode.PROOF_INVALID)
        self._found.append((witness, signed))
        return None

    def _too_few(self) -> LockboxError:
        if self._limited:
            refusal = min(self._limited, key=lambda refusal: refusal.retry_after_s)
            refusal.retry_after_s = min(refusal.retry_after_s, WINDOW_S)
            return refusal
        operators = _operators(witness for witness, _ in self._found)
        error = PeerUnreachable(
            f"{len(self._found)} verifiers of {operators} operators state what they saw; {self._tier.name} needs "
            f"{self._tier.quorum} of {self._tier.quorum}",
            "check the connection, then try again",
        )
        answered = [error for error in self._refusals if not isinstance(error, PeerUnreachable)]
        return answered[0] if answered and not self._found else error


def _operators(witnesses: Iterable[Witness]) -> int:
    return len({witness.signer.operator for witness in witnesses})


def _nothing_shown(stripe: int) -> LockboxError:
    return LockboxError(
        f"nobody shows stripe {stripe} of this asset: there is nothing to certify",
        "`lockbox verify` without --certificate says what is left",
        ErrorCode.INSUFFICIENT_SHARDS,
    )
