"""Fixed keys, certificates and one sample of every message and record: what tests and vectors are made of.

Everything is derived from names, so that each run, and each implementation, makes the same bytes.
"""

from __future__ import annotations

from functools import cache

from protocol.certificates import NetworkRoot, Role, verify_chain
from protocol.documents import (
    Document,
    Place,
    Policy,
    Regions,
    Release,
    Releases,
    Revocation,
    Revocations,
    Setting,
    sign_document,
    version_of,
)
from protocol.drains import DrainReceipt
from protocol.grants import Grant, GrantRequest
from protocol.ids import address_of
from protocol.issuing import (
    Terms,
    build_identity,
    build_operational_leaf,
    build_request,
    build_role_leaf,
    build_root,
    read_csr,
)
from protocol.merkle import prove, root
from protocol.messages import (
    NO_INDEX,
    AskGrant,
    BucketDigest,
    CompareHeld,
    Delete,
    Differing,
    Documents,
    DocumentVersion,
    Done,
    FindHolders,
    FindNode,
    GetDocuments,
    GetShards,
    GetSlot,
    Gossip,
    Hello,
    HolderEntry,
    Holders,
    HolderTable,
    Members,
    MemberState,
    MemberUpdate,
    Message,
    Nodes,
    Ping,
    PingFor,
    Pong,
    Proof,
    Prove,
    PutStripe,
    Refusal,
    Renew,
    Shards,
    Signed,
    SignedDocument,
    Slots,
    SlotState,
    Stored,
    SyncMembers,
    TellDocuments,
    TellHolders,
    Told,
)
from protocol.possession import AskAudit
from protocol.records import AccessClaim, Descriptor, Group, NodeRecord, Renewal, Tombstone, descriptor_hash, sign
from protocol.summaries import KEY_BYTES, summary
from protocol.vantage import CompareVantages, KnownVantage, RoundTrip, TellVantages, Vantage, Vantages
from tests.protocol import possession_samples
from tests.protocol.sample_keys import digest as digest
from tests.protocol.sample_keys import ed as ed
from tests.protocol.sample_keys import hashed as hashed
from tests.protocol.sample_keys import p256 as p256
from tests.protocol.sample_keys import raw as raw
from tests.protocol.sample_keys import stretched as stretched

NOW_UNIX_S = 1_800_000_000
OPERATOR = "Öko Storage"
TERMS = Terms(serial=7, not_before_unix_s=NOW_UNIX_S - 3600, not_after_unix_s=NOW_UNIX_S + 365 * 86400)


@cache
def network() -> NetworkRoot:
    """The network of all samples."""
    return NetworkRoot(build_root(p256("root"), "LockBox vectors", TERMS))


@cache
def identity(name: str = "node", operator: str = OPERATOR) -> bytes:
    """An identity certificate, DER."""
    csr = read_csr(build_request(p256(name), operator))
    return build_identity(network(), p256("root"), csr, digest(f"{name} salt")[:16], TERMS)


@cache
def node_chain(name: str = "node") -> list[bytes]:
    """A node's chain: its operational leaf (key `name` leaf), then its identity certificate."""
    return [build_operational_leaf(identity(name), p256(name), raw(f"{name} leaf"), TERMS), identity(name)]


@cache
def role_leaf(role: Role) -> bytes:
    """The leaf of a client, an operator or the guest, DER."""
    return build_role_leaf(network(), p256("root"), role, raw(str(role)), TERMS)


def node_record(**changes: object) -> NodeRecord:
    """The record of the node `node`."""
    fields: dict[str, object] = {
        "node": verify_chain(network(), node_chain()).id,
        "sequence": NOW_UNIX_S * 1000,
        "expires_unix_s": NOW_UNIX_S + 86400,
        "addresses": ["192.0.2.7:4700", "[2001:db8::7]:4700"],
        "region": "eu-helsinki",
        "operator": OPERATOR,
        "capacity_class": 9,
        "free_class": 10,
        "versions": [1],
        "software": digest("software"),
        "state": 1,
        "location_level": 0,
        "epoch": 12,
        "instance": stretched("instance", 16),
        "chain": node_chain(),
    }
    return NodeRecord(**(fields | changes))  # type: ignore[arg-type]


@cache
def signed_record() -> Signed:
    """That record, signed by the node's operational key."""
    return sign(node_record(), ed("node leaf"))


def vantage(**changes: object) -> Vantage:
    """What the node `node` has measured of two others."""
    fields: dict[str, object] = {
        "judge": verify_chain(network(), node_chain()).id,
        "region": "eu-helsinki",
        "signed_unix_s": NOW_UNIX_S,
        "round_trips": [
            RoundTrip(subject, "ap-southeast-2", 1_834, 20, NOW_UNIX_S - 60)
            for subject in sorted([digest("holder 0"), digest("holder 1")])
        ],
        "chain": node_chain(),
    }
    return Vantage(**(fields | changes))  # type: ignore[arg-type]


@cache
def signed_vantage() -> Signed:
    """That report, signed by the node's operational key."""
    return sign(vantage(), ed("node leaf"))


SHARD = stretched("shard", 5000)
SLOT = stretched("slot", 1024)


def descriptor(**changes: object) -> Descriptor:
    """A (3, 5) descriptor with two groups; shard 2 of group 0 is SHARD."""
    ids = [[digest(f"shard {group} {index}") for index in range(5)] for group in range(2)]
    ids[0][2] = root(SHARD, 4096)
    fields: dict[str, object] = {
        "public_key": raw("asset"),
        "version": 1,
        "tier": 0,
        "code": 1,
        "k": 3,
        "n": 5,
        "hash": 1,
        "leaf_bytes": 4096,
        "shard_bytes": len(SHARD),
        "groups": [Group(shard_ids) for shard_ids in ids],
        "slot_hashes": [hashed(SLOT)],
        "created_unix_s": NOW_UNIX_S,
        "lease_until_unix_s": NOW_UNIX_S + 30 * 86400,
        "replaces": [],
    }
    return Descriptor(**(fields | changes))  # type: ignore[arg-type]


def signed_descriptor() -> Signed:
    """That descriptor, signed by the asset key."""
    return sign(descriptor(), ed("asset"))


def renewal() -> Renewal:
    """Thirty days more for that descriptor."""
    return Renewal(raw("asset"), 1, descriptor_hash(signed_descriptor()), NOW_UNIX_S + 60 * 86400, NOW_UNIX_S)


def signed_renewal() -> Signed:
    """That renewal, signed."""
    return sign(renewal(), ed("asset"))


def access_claim(operation: int = 8) -> AccessClaim:
    """Leave to read."""
    return AccessClaim(raw("asset"), operation, digest("requester"), stretched("nonce", 16), NOW_UNIX_S)


def signed_claim(operation: int = 8) -> Signed:
    """That leave, signed."""
    return sign(access_claim(operation), ed("asset"))


def grant_request() -> GrantRequest:
    """A wish to fetch shards once."""
    return GrantRequest(raw("asset"), 8, digest("requester"), digest("grant nonce"), NOW_UNIX_S)


def signed_wish() -> Signed:
    """That wish, signed."""
    return sign(grant_request(), ed("asset"))


def grant() -> Grant:
    """What the node `node` grants for it."""
    wish = grant_request()
    address, chain = address_of(wish.public_key), node_chain()
    return Grant(address, wish.requester, wish.operation, wish.nonce, NOW_UNIX_S + 120, chain)


def signed_grant() -> Signed:
    """That grant, signed by the node's operational key."""
    return sign(grant(), ed("node leaf"))


def drain_receipt() -> DrainReceipt:
    """What the node `node` signs when it was drained."""
    return DrainReceipt(node_record().node, NOW_UNIX_S - 600, NOW_UNIX_S, 1200, 5_000_000, node_chain())


def signed_drain() -> Signed:
    """That receipt, signed by the node's operational key."""
    return sign(drain_receipt(), ed("node leaf"))


def tombstone() -> Tombstone:
    """The end of an address."""
    return Tombstone(raw("asset"), 3, NOW_UNIX_S, NOW_UNIX_S + 60 * 86400, "deleted by its owner")


def signed_tombstone() -> Signed:
    """That end, signed."""
    return sign(tombstone(), ed("asset"))


@cache
def documents() -> dict[str, Document]:
    """One document of every kind."""
    revoked = sorted(digest(name) for name in ("revoked node", "revoked client"))
    released = sorted((digest("software"), digest("old software")))
    return {
        "revocations": Revocations(3, NOW_UNIX_S, [Revocation(one, NOW_UNIX_S, "key lost") for one in revoked]),
        "releases": Releases(1, NOW_UNIX_S, [Release(one, "1.0", NOW_UNIX_S * at) for at, one in enumerate(released)]),
        "regions": Regions(2**63 - 1, 0, [Place("eu-helsinki", 60_170_000, 24_940_000), Place("sa-east-1", -1, -1)]),
        "policy": Policy(7, NOW_UNIX_S, [Setting("guard", "60"), Setting("healing", "on")]),
    }


@cache
def signed_document(kind: str = "revocations") -> SignedDocument:
    """That document, signed by the root."""
    return sign_document(documents()[kind], p256("root"))


def document_version(kind: str = "revocations") -> DocumentVersion:
    """How it is named."""
    return version_of(signed_document(kind), documents()[kind])


ENTRIES = [HolderEntry(index, digest(f"holder {index}"), NOW_UNIX_S) for index in range(5)]
ADDRESS = address_of(raw("asset"))


def table() -> HolderTable:
    """A holder table."""
    return HolderTable(ADDRESS, 1, descriptor_hash(signed_descriptor()), ENTRIES)


def lost_table() -> HolderTable:
    """What holder 2 tells when it no longer has its shards."""
    return HolderTable(ADDRESS, 1, table().descriptor_hash, [HolderEntry(NO_INDEX, digest("holder 2"), NOW_UNIX_S + 1)])


@cache
def requests() -> dict[str, Message]:
    """One request of every type, several where optional fields differ."""
    slot_hash = descriptor_hash(signed_descriptor())
    state = MemberState(digest("holder 0"), 2**63 - 1, 2)
    network_id = network().network_id
    clock_ms = NOW_UNIX_S * 1000
    client = [role_leaf(Role.CLIENT)]
    return {
        "hello of a node": Hello(node_chain(), [1], network_id, signed_record(), digest("software"), clock_ms),
        "hello of a client": Hello(client, [1, 2], network_id, None, b"", clock_ms),
        "ping": Ping(0),
        "ping with the largest nonce": Ping(2**63 - 1),
        "sync_members of a node": SyncMembers([state]),
        "sync_members of a client": SyncMembers([], digest("holder 0")),
        "gossip": Gossip([MemberUpdate(state, None), MemberUpdate(state, signed_record())]),
        "find_node": FindNode(digest("target"), 128),
        "find_holders": FindHolders(ADDRESS),
        "put_stripe": PutStripe(signed_descriptor(), [SLOT], 2, [SHARD, SHARD], ENTRIES),
        "put_stripe, renewed": PutStripe(signed_descriptor(), [SLOT], 2, [SHARD, SHARD], ENTRIES, signed_renewal()),
        "get_shards": GetShards(ADDRESS, slot_hash, signed_wish(), [signed_grant()]),
        "get_shards between holders": GetShards(ADDRESS, slot_hash, None),
        "get_slot": GetSlot(ADDRESS, signed_claim(9)),
        "delete": Delete(signed_tombstone()),
        "prove": Prove(ADDRESS, slot_hash, stretched("nonce", 16), signed_claim(11)),
        "tell_holders": TellHolders([table()], signed_claim(12)),
        "tell_holders of what is lost here": TellHolders([lost_table()], None),
        "renew": Renew(signed_renewal()),
        "compare_held": CompareHeld([BucketDigest(0, 1, digest("sum")), BucketDigest(4095, 2**32 - 1, bytes(32))]),
        "compare_held, nothing here": CompareHeld([]),
        "sync_members with documents": SyncMembers([], b"", [document_version()]),
        "sync_members by digests": SyncMembers([], b"", [], summary([state], bytes(range(KEY_BYTES)))),
        "sync_members of some groups": SyncMembers([state], b"", [], b"", b"\x00\xff"),
        "get_documents": GetDocuments([document_version(), document_version("policy")]),
        "get_documents of one who has none": GetDocuments([]),
        "ask_grant": AskGrant(signed_wish()),
        "ask_audit": possession_samples.ask_audit(signed_descriptor(), signed_claim(11)),
        "ping_for": PingFor(bytes(range(32)), 2**63 - 1),
        "tell_documents": TellDocuments([signed_document(kind) for kind in documents()]),
        "compare_vantages": CompareVantages([KnownVantage(digest("holder 0"), NOW_UNIX_S)]),
        "compare_vantages of a client": CompareVantages([], digest("holder 0")),
        "tell_vantages": TellVantages([signed_vantage()]),
    }


@cache
def replies() -> dict[str, tuple[type[Message], Message]]:
    """One reply of every type, with the request that it answers."""
    state = MemberState(digest("holder 0"), 1, 0)
    slots = [SLOT]
    leaves = prove(SHARD, 4096, [0, 1])
    return {
        "hello": (Hello, Hello(node_chain(), [1], network().network_id, None, digest("software"), 0)),
        "pong": (Ping, Pong(5, NOW_UNIX_S * 1000)),
        "members": (SyncMembers, Members([MemberUpdate(state, signed_record())], [digest("holder 1")], True)),
        "done of gossip": (Gossip, Done()),
        "nodes": (FindNode, Nodes([signed_record()])),
        "holders": (FindHolders, Holders([table()], signed_tombstone(), [signed_record()])),
        "holders, nothing here": (FindHolders, Holders([], None, [])),
        "stored": (PutStripe, Stored([signed_descriptor()])),
        "shards": (GetShards, Shards(signed_descriptor(), slots, 2, [SHARD])),
        "slots": (GetSlot, Slots([SlotState(signed_descriptor(), slots, 2, ENTRIES)], None)),
        "slots, renewed": (
            GetSlot,
            Slots([SlotState(signed_descriptor(), slots, 2, ENTRIES, signed_renewal())], signed_tombstone()),
        ),
        "done of delete": (Delete, Done()),
        "proof": (Prove, Proof(2, [leaves, []])),
        "told nothing new": (TellHolders, Told([], [], [])),
        "told": (TellHolders, Told([signed_tombstone()], [signed_descriptor()], [digest("descriptor")])),
        "done of renew": (Renew, Done()),
        "differing": (CompareHeld, Differing([0, 4095])),
        "members and documents": (SyncMembers, Members([], [], False, [document_version("policy")])),
        "members, where they differ": (SyncMembers, Members([], [], False, [], b"\x00\xff")),
        "documents": (GetDocuments, Documents([signed_document("policy")])),
        "done of tell_documents": (TellDocuments, Done()),
        "grant": (AskGrant, signed_grant()),
        "statement": (AskAudit, possession_samples.signed_statement(signed_descriptor(), node_chain())),
        "pong of ping_for": (PingFor, Pong(7, 3)),
        "vantages": (CompareVantages, Vantages([signed_vantage()], [digest("holder 0")], False)),
        "done of tell_vantages": (TellVantages, Done()),
    }


def refusals() -> dict[str, Refusal]:
    """A short and a full refusal."""
    return {
        "short": Refusal("NOT_FOUND", "nothing stands at this address"),
        "full": Refusal("STALE", "a newer version stands", "read it first", True, 1500, signed_descriptor()),
    }
