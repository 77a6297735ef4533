"""How far a group is behind, from what Redis says of stream, group and members.

Decides what is exact. Must never ask. The `lag` of XINFO GROUPS is not used: it is null after a deletion, and on
Redis 7.0 and Valkey 9.1 it still counts what was trimmed. What can still be read is what counts here.
"""

from collections.abc import Sequence
from typing import Any, Final

from consumers.command import Command, Reply
from consumers.groups.delivery import GroupLag, Member
from consumers.groups.record import generation_of
from consumers.groups.standing import GroupFacts, read_group
from consumers.reading.gaps import StreamFacts, read_facts
from wire import EntryId, Keyspace

COUNT_MAX: Final = 10_000
"""Entries that are counted one by one; beyond it the number is a lower bound."""
_NS_PER_MS: Final = 1_000_000


def lag_questions(keys: Keyspace, group: str, symbol: str) -> list[Command]:
    """What to ask first: one transaction, so that the answers fit together."""
    key = keys.stream(symbol)
    return [
        ("MULTI",),
        ("XINFO", "STREAM", key),
        ("XINFO", "GROUPS", key),
        ("XPENDING", key, group),
        ("XINFO", "CONSUMERS", key, group),
        ("EXEC",),
    ]


def count_question(keys: Keyspace, group: str, symbol: str, answers: Sequence[Reply]) -> Command | None:
    """What else to ask: the entries behind the group's place, where their number does not follow."""
    facts, found = read_facts(answers[0]), read_group(answers[1], group.encode())
    if facts is None or found is None or _known(facts, found) is not None:
        return None
    return ("XRANGE", keys.stream(symbol), f"({found.last}", "+", "COUNT", COUNT_MAX)


def measure(group: str, symbol: str, answers: Sequence[Reply], behind: Sequence[Any] | None) -> GroupLag:
    """The lag; `behind` is the reply to `count_question`, if there was one."""
    facts, found = read_facts(answers[0]), read_group(answers[1], group.encode())
    if facts is None or found is None:
        return GroupLag(symbol, False, 0, True, 0, 0.0, ())
    entries = _known(facts, found)
    if entries is None:
        entries = len(behind or ())
    pending, consumers = answers[2], answers[3]
    found_members = [] if isinstance(consumers, Exception) else [_member(raw) for raw in consumers]
    members = [member for member in found_members if generation_of(member.name.encode()) is None]
    members.sort(key=lambda member: (-member.pending, member.name))
    return GroupLag(
        symbol=symbol,
        exists=True,
        entries=entries,
        is_exact=behind is None or len(behind) < COUNT_MAX,
        pending=0 if isinstance(pending, Exception) else int(pending[0]),
        ms=_behind_ms(facts, found.last) if entries else 0.0,
        members=tuple(members),
    )


def _known(facts: StreamFacts, group: GroupFacts) -> int | None:
    if facts.first is None or group.last >= facts.last:
        return 0
    if group.last < facts.first:
        return facts.length
    return None


def _behind_ms(facts: StreamFacts, last: EntryId) -> float:
    since = last if facts.first is None else max(last, facts.first)
    return (facts.last.time_ns - since.time_ns) / _NS_PER_MS


def _member(raw: Sequence[Any]) -> Member:
    fields = dict(zip(raw[::2], raw[1::2], strict=True))
    name = fields[b"name"].decode("utf-8", "replace")
    return Member(name, int(fields[b"pending"]), int(fields[b"idle"]) / 1000)
