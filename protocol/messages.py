"""Every request and reply as one frozen array-like Struct; the limits stand in the types.

The envelope (`Envelope`) is decoded first, its body by the number of its type: a request that we do not know is
answered (UNSUPPORTED), not dropped. Meaning of each message, who may send it, and its limits: SPEC.md, Messages.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from protocol.fields import U8 as U8
from protocol.fields import U32 as U32
from protocol.fields import U63 as U63
from protocol.fields import UNDECODABLE as UNDECODABLE
from protocol.fields import Chain as Chain
from protocol.fields import Id32 as Id32
from protocol.fields import LongText as LongText
from protocol.fields import Message as Message
from protocol.fields import Nonce16 as Nonce16
from protocol.fields import ShortText as ShortText
from protocol.fields import Signature64 as Signature64
from protocol.fields import Signed as Signed
from protocol.held import BUCKETS
from protocol.possession import AskAudit
from protocol.summaries import MEMBER_GROUPS, SUMMARY_BYTES
from protocol.vantage import CompareVantages, TellVantages, Vantages

GROUPS_MAX = 8
SHARDS_MAX = 64  # n of the largest code that a descriptor may name
SLOTS_MAX = 4
SHARD_BYTES_MAX = 256 * 1024
SLOT_BYTES_MAX = 4096
SIBLINGS_MAX = 8
RECORDS_MAX = 1000  # records in one reply of sync_members
FIND_NODE_MAX = 128
ENTRIES_MAX = 4 * SHARDS_MAX
SEQUENCE_MAX = 2**53  # of a holder table line: one more is always possible in 63 bits
TABLES_MAX = 256  # holder tables in one tell_holders
TOLD_NEWER_MAX = 64  # newer descriptors in its reply
NO_INDEX = 255  # of a holder table line: this node says itself that it no longer holds what it held
UPDATES_MAX = 1000
LEAVES_MAX = 64
DOCUMENT_BYTES_MAX = 512 * 1024
DOCUMENTS_MAX = 4  # in one message
DOCUMENT_KINDS_MAX = 16  # whose versions are told at once
GRANTS_MAX = 8

BucketNumber = Annotated[int, Meta(ge=0, le=BUCKETS - 1)]
ShardBytes = Annotated[bytes, Meta(min_length=1, max_length=SHARD_BYTES_MAX)]
SlotBytes = Annotated[bytes, Meta(min_length=1, max_length=SLOT_BYTES_MAX)]


class Envelope(Message, frozen=True):
    """One frame: kind 0 = call, 1 = reply, 2 = refusal; `type` is the request's number, in replies too."""

    kind: Annotated[int, Meta(ge=0, le=2)]
    call: U32
    type: U8
    body: msgspec.Raw


class Refusal(Message, frozen=True):
    """Why a request was not served, and what to do."""

    code: ShortText
    message: LongText
    hint: LongText = ""
    retryable: bool = False
    retry_after_ms: U32 = 0
    proof: Signed | None = None  # the signed slot or tombstone behind CONFLICT and STALE


class HolderEntry(Message, frozen=True):
    """Who keeps shard `index` of every group; the higher sequence wins. NO_INDEX counts only from that node itself."""

    index: U8
    node: Id32
    sequence: Annotated[int, Meta(ge=0, le=SEQUENCE_MAX)]


Entries = Annotated[list[HolderEntry], Meta(max_length=ENTRIES_MAX)]


class HolderTable(Message, frozen=True):
    """The holder table of one slot identity."""

    address: Id32
    version: U63
    descriptor_hash: Id32
    entries: Entries


class MemberState(Message, frozen=True):
    """What a member is believed to be: status 0 = alive, 1 = suspect, 2 = dead; incarnation = record sequence."""

    node: Id32
    incarnation: U63
    status: Annotated[int, Meta(ge=0, le=2)]


class Hello(Message, frozen=True):
    """First call and first reply of every connection. `chain` is leaf first, without the root."""

    chain: Chain
    versions: Annotated[list[U8], Meta(min_length=1, max_length=16)]
    network: Id32
    record: Signed | None  # a node's own NodeRecord; null for clients, operators, the guest
    software: Annotated[bytes, Meta(max_length=32)]  # SHA-256 claim of a node, empty for others
    clock_unix_ms: U63


class Ping(Message, frozen=True):
    """A probe."""

    nonce: U63


class Pong(Message, frozen=True):
    """Its answer, with what the answerer knows about itself."""

    nonce: U63
    incarnation: U63


class DocumentVersion(Message, frozen=True):
    """Which document of a kind somebody has: the greater (version, digest) is the newer one."""

    kind: U8
    version: U63
    digest: Id32  # SHA-256 of its body


Versions = Annotated[list[DocumentVersion], Meta(max_length=DOCUMENT_KINDS_MAX)]


class SyncMembers(Message, frozen=True):
    """Push-pull of the member table. `known` = the asker's view; clients send it empty and page with `after`.

    A `summary` alone asks in which groups of members the views differ; `groups`, where given, are all that is compared.
    """

    known: Annotated[list[MemberState], Meta(max_length=20_000)]
    after: Annotated[bytes, Meta(max_length=32)] = b""
    documents: Versions = []  # noqa: RUF012  # msgspec gives each message one of its own
    summary: Annotated[bytes, Meta(max_length=SUMMARY_BYTES)] = b""
    groups: Annotated[bytes, Meta(max_length=MEMBER_GROUPS)] = b""


class MemberUpdate(Message, frozen=True):
    """One rumour: a state, with the record when the receiver may lack it."""

    state: MemberState
    record: Signed | None


class Members(Message, frozen=True):
    """What the asker lacked or had older, what we lack (`wanted`), and whether more follows after the last id."""

    updates: Annotated[list[MemberUpdate], Meta(max_length=RECORDS_MAX)]
    wanted: Annotated[list[Id32], Meta(max_length=RECORDS_MAX)]
    more: bool
    documents: Versions = []  # noqa: RUF012  # msgspec gives each message one of its own
    differing: Annotated[bytes, Meta(max_length=MEMBER_GROUPS)] = b""  # groups, the answer to a summary


class Gossip(Message, frozen=True):
    """Rumours pushed."""

    updates: Annotated[list[MemberUpdate], Meta(max_length=UPDATES_MAX)]


class Done(Message, frozen=True):
    """It is done; there is nothing to say."""


class FindNode(Message, frozen=True):
    """The records nearest to `target` that the asked node believes alive."""

    target: Id32
    count: Annotated[int, Meta(ge=1, le=FIND_NODE_MAX)]


class Nodes(Message, frozen=True):
    """Signed NodeRecords: who has answered the asked node first, then the others, both nearest first."""

    records: Annotated[list[Signed], Meta(max_length=FIND_NODE_MAX)]


class FindHolders(Message, frozen=True):
    """Who holds what stands at `address`?"""

    address: Id32


class Holders(Message, frozen=True):
    """Holder tables (of every version and sibling known), the tombstone if any, else the nearest records."""

    tables: Annotated[list[HolderTable], Meta(max_length=SIBLINGS_MAX)]
    tombstone: Signed | None
    nearest: Annotated[list[Signed], Meta(max_length=20)]


class PutStripe(Message, frozen=True):
    """One holder's part of a stripe: shard `index` of every group. `holders` is the whole planned table."""

    descriptor: Signed
    slots: Annotated[list[SlotBytes], Meta(min_length=1, max_length=SLOTS_MAX)]
    index: U8
    shards: Annotated[list[ShardBytes], Meta(max_length=GROUPS_MAX)]
    holders: Entries
    renewal: Signed | None = None  # the newest that the putter knows of this slot identity


class Stored(Message, frozen=True):
    """Durable. `siblings` are other descriptors of the same version that stand there too."""

    siblings: Annotated[list[Signed], Meta(max_length=SIBLINGS_MAX)]


class GetShards(Message, frozen=True):
    """The asked holder's shards of one slot identity: by a GrantRequest and grants for it, or null between holders."""

    address: Id32
    descriptor_hash: Id32
    access: Signed | None
    grants: Annotated[list[Signed], Meta(max_length=GRANTS_MAX)] = []  # noqa: RUF012  # as above


class Shards(Message, frozen=True):
    """Every byte was verified against its shard id in this call."""

    descriptor: Signed
    slots: Annotated[list[SlotBytes], Meta(min_length=1, max_length=SLOTS_MAX)]
    index: U8
    shards: Annotated[list[ShardBytes], Meta(max_length=GROUPS_MAX)]


class GetSlot(Message, frozen=True):
    """Descriptors, manifest slots and holder tables at an address, without shards."""

    address: Id32
    access: Signed | None


class SlotState(Message, frozen=True):
    """One slot identity as its holder keeps it."""

    descriptor: Signed
    slots: Annotated[list[SlotBytes], Meta(min_length=1, max_length=SLOTS_MAX)]
    index: U8
    entries: Entries
    renewal: Signed | None = None  # the newest that the holder knows of this slot identity


class Slots(Message, frozen=True):
    """All slot identities held at the address, highest version first, and the tombstone if any."""

    states: Annotated[list[SlotState], Meta(max_length=SIBLINGS_MAX)]
    tombstone: Signed | None


class Delete(Message, frozen=True):
    """Remove every version up to the tombstone's. The tombstone is signed by the asset key."""

    tombstone: Signed


class Prove(Message, frozen=True):
    """Prove possession of shard `index` of every group now, by leaves drawn from `nonce`."""

    address: Id32
    descriptor_hash: Id32
    nonce: Nonce16
    access: Signed | None


class LeafProof(Message, frozen=True):
    """One Merkle leaf and its path to the shard id."""

    leaf_index: U32
    leaf: Annotated[bytes, Meta(min_length=1, max_length=64 * 1024)]
    path: Annotated[list[Id32], Meta(max_length=32)]


class Proof(Message, frozen=True):
    """Leaf proofs, one list per group; a shard of at most 64 KiB proves all of its leaves."""

    index: U8
    groups: Annotated[list[Annotated[list[LeafProof], Meta(max_length=LEAVES_MAX)]], Meta(max_length=GROUPS_MAX)]


class TellHolders(Message, frozen=True):
    """Holder tables to merge: between holders, as pointers for neighbours, or by the owner (`access`)."""

    tables: Annotated[list[HolderTable], Meta(min_length=1, max_length=TABLES_MAX)]
    access: Signed | None


class Told(Message, frozen=True):
    """What the teller should know: that told slots were deleted, were replaced, or are not held here."""

    tombstones: Annotated[list[Signed], Meta(max_length=TABLES_MAX)]  # that cover told tables
    newer: Annotated[list[Signed], Meta(max_length=TOLD_NEWER_MAX)]  # descriptors whose `replaces` names a told one
    missing: Annotated[list[Id32], Meta(max_length=TABLES_MAX)]  # descriptor hashes: told as held here, but are not


class Renew(Message, frozen=True):
    """Keep a slot identity for longer. The renewal is signed by the asset key, so anybody may carry it."""

    renewal: Signed


class BucketDigest(Message, frozen=True):
    """How many slot identities one bucket has, and the sum of their digests: protocol.held."""

    bucket: BucketNumber
    count: U32
    digest: Id32


class CompareHeld(Message, frozen=True):
    """The asker's buckets of what both nodes should hold; a bucket that is left out is empty."""

    buckets: Annotated[list[BucketDigest], Meta(max_length=BUCKETS)]


class Differing(Message, frozen=True):
    """The buckets in which the two differ, ascending."""

    buckets: Annotated[list[BucketNumber], Meta(max_length=BUCKETS)]


class SignedDocument(Message, frozen=True):
    """A network document: its kind, its raw encoded body, the root key's signature (r || s): protocol.documents."""

    kind: U8
    body: Annotated[bytes, Meta(min_length=1, max_length=DOCUMENT_BYTES_MAX)]
    signature: Signature64


class GetDocuments(Message, frozen=True):
    """Whatever is newer than what the asker has; to be asked is to hear what it has."""

    known: Versions


class Documents(Message, frozen=True):
    """Of some kinds, the newest that the asked node has."""

    documents: Annotated[list[SignedDocument], Meta(max_length=DOCUMENTS_MAX)]


class TellDocuments(Message, frozen=True):
    """New documents from the authority, by whoever carries them."""

    documents: Annotated[list[SignedDocument], Meta(min_length=1, max_length=DOCUMENTS_MAX)]


class PingFor(Message, frozen=True):
    """Ping that node for the asker, who gets no answer from it."""

    node: Id32
    nonce: U63


class AskGrant(Message, frozen=True):
    """A verifier's grant is wanted; the reply is the signed Grant: protocol.grants."""

    request: Signed  # a GrantRequest


# number on the wire -> (request, reply)
TYPES: dict[int, tuple[type[Message], type[Message]]] = {
    1: (Hello, Hello),
    2: (Ping, Pong),
    3: (SyncMembers, Members),
    4: (Gossip, Done),
    5: (FindNode, Nodes),
    6: (FindHolders, Holders),
    7: (PutStripe, Stored),
    8: (GetShards, Shards),
    9: (GetSlot, Slots),
    10: (Delete, Done),
    11: (Prove, Proof),
    12: (TellHolders, Told),
    13: (Renew, Done),
    14: (CompareHeld, Differing),
    15: (GetDocuments, Documents),
    16: (TellDocuments, Done),
    17: (PingFor, Pong),
    18: (CompareVantages, Vantages),
    19: (TellVantages, Done),
    20: (AskGrant, Signed),
    21: (AskAudit, Signed),
}
NUMBERS: dict[type[Message], int] = {request: number for number, (request, _) in TYPES.items()}
