"""Audits among whole nodes: what they know of one another is stated, and no crash makes one contradict itself."""

from __future__ import annotations

import pytest
import trio

from lockbox_node.client.certifying import certify
from lockbox_node.core.certified import examined
from lockbox_node.core.contradictions import contradictions, predecessors
from lockbox_node.core.derivation import access, root_key
from lockbox_node.core.tiers import BASIC, STANDARD
from protocol.errors import ErrorCode
from protocol.messages import NUMBERS, Prove
from protocol.possession import AskAudit
from protocol.possession_file import unsealed
from tests.simulations.test_whole_grants import asked, running


async def test_certificates_before_and_after_a_crash_of_everybody_agree() -> None:
    async with running(14) as (cluster, person):
        kept = await person.lock(200_000, STANDARD)
        assert kept is not None
        first = await certify(person.vault, kept.asset)
        for host in cluster.hosts.values():
            cluster.crash(host.name, power=False)
        for name in cluster.hosts:
            await cluster.start(name).ready.wait()
        await trio.sleep(20)
        second = await certify(person.vault, kept.asset, first.examined.digest)
        both = [examined(cluster.authority.root, one.file) for one in (first, second)]
        assert [one.whole for one in both] == [True, True]
        assert predecessors(both) == [None, both[0]]
        assert contradictions([*both[0].witnesses, *both[1].witnesses]) == []
        regions = {host.id: host.region for host in cluster.hosts.values()}
        for witness in both[1].witnesses:
            assert witness.statement.region == regions[witness.signer.id]
            assert witness.statement.life > min(one.statement.life for one in both[0].witnesses)
            assert {one.node: one.region for one in witness.statement.findings}.items() <= regions.items()


@pytest.mark.parametrize("power", [False, True])
async def test_no_crash_has_a_request_answered_twice(power: bool) -> None:
    async with running(7) as (cluster, person):
        kept = await person.lock(1000, BASIC)
        assert kept is not None
        file = (await certify(person.vault, kept.asset)).file
        [evidence] = unsealed(file)[0].stripes
        signers = [one.signer.id for one in examined(cluster.authority.root, file).witnesses]
        for host in cluster.hosts.values():
            cluster.crash(host.name, power=power)
        for name in cluster.hosts:
            await cluster.start(name).ready.wait()
        await trio.sleep(5)
        said = set()
        with root_key(person.vault.wallet.master, kept.asset.index) as key:
            for signer in signers:
                leave = access(key, NUMBERS[Prove], signer, bytes(16), int(person.vault.now_unix_s()))
                said.add(await asked(person, signer, AskAudit(evidence.request, evidence.descriptor, leave)))
        assert said == {ErrorCode.BUSY if power else ErrorCode.GRANT_REPLAYED}
