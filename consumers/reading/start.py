"""Where in its stream a reader begins.

Decides what a caller's `start` means, which questions turn it into a concrete entry id, and what the answers
mean. Must never ask them itself, nor read a clock.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Final, Literal, TypeAlias

from consumers.command import Command, Reply
from consumers.errors import BadStart, BadSymbol
from consumers.reading.entry import decode_entry
from consumers.reading.gaps import Anchor, read_facts
from wire import (
    ZERO_ID,
    BadEntry,
    EntryId,
    Gap,
    Keyspace,
    Quote,
    Symbol,
    decode_latest,
    entry_id_at,
    parse_symbol,
)

Start: TypeAlias = Literal["now", "snapshot", "earliest"] | EntryId | datetime | int | str  # noqa: PYI051
"""Where to begin in one stream.

- `"now"`: after the last entry there is when the reader connects.
- `"snapshot"`: the newest quote first, then everything after it. The quote is the cache's; a symbol without one in
  the cache begins with the newest entry of its stream, and if there is none with the first that comes.
- `"earliest"`: everything that the stream still holds.
- an entry id (`EntryId`, or `"1763000004123-825050000"`): strictly after it.
- a time (aware `datetime`, or nanoseconds since the epoch as `int`): the first entry at or after it.
"""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_U64_MAX: Final = 2**64 - 1
_NS_PER_MS: Final = 1_000_000
_LIKELY_NOT_NS: Final = range(10**9, 10**16)
MARKERS_BACK: Final = 16
"""How many markers in a row before a time are looked at for one whose hole reaches behind it."""


class Wish(Enum):
    """A start that only Redis can turn into an entry id."""

    NOW = "now"
    SNAPSHOT = "snapshot"


@dataclass(frozen=True, slots=True)
class Place:
    """A concrete place: reading goes on after `after`. `anchor` says how the id is known."""

    after: EntryId
    anchor: Anchor
    quote: Quote | None = None
    number: int | None = None
    """How many entries the stream had been given up to there, where that is known."""


def parse_start(start: object) -> Wish | Place:
    """What one `start` means; `BadStart` with the reason and the remedy."""
    match start:
        case "now":
            return Wish.NOW
        case "snapshot":
            return Wish.SNAPSHOT
        case "earliest":
            return Place(ZERO_ID, Anchor.CHOSEN)
        case EntryId():
            return Place(start, Anchor.CLAIMED)
        case str():
            if start == "$":
                raise BadStart(
                    "start='$' is not supported, because it means another place at each read: use 'now'"
                )
            try:
                return Place(EntryId.parse(start), Anchor.CLAIMED)
            except ValueError:
                raise BadStart(
                    f"start={start[:60]!r} is none of 'now', 'snapshot', 'earliest', nor an entry id such as "
                    "'1763000004123-825050000'"
                ) from None
        case datetime() | int() if not isinstance(start, bool):
            return Place(before(entry_id_at(parse_time_ns(start, "start"))), Anchor.CHOSEN)
        case _:
            raise BadStart(
                f"start is a {type(start).__name__}: pass 'now', 'snapshot', 'earliest', an entry id, an aware "
                "datetime, or nanoseconds since the epoch"
            )


def parse_starts(symbols: Sequence[Symbol], start: object) -> dict[Symbol, Wish | Place]:
    """The start of each symbol, from one for all or from a mapping; a symbol the mapping lacks begins now."""
    if not isinstance(start, Mapping):
        origin = parse_start(start)
        return dict.fromkeys(symbols, origin)
    strangers = sorted(str(name) for name in start if name not in symbols)
    if strangers:
        raise BadStart(
            f"start names {', '.join(strangers)[:200]}, which is not among the symbols: name it there, or drop it"
        )
    return {symbol: parse_start(start.get(symbol, "now")) for symbol in symbols}


def parse_symbols(names: Sequence[object]) -> list[Symbol]:
    """The symbols that a caller named, each once; `BadSymbol` with the reason."""
    symbols: dict[Symbol, None] = {}
    for name in names:
        if not isinstance(name, str):
            raise BadSymbol(
                f"{type(name).__name__} is not a symbol: pass names one by one, as in quotes(*names)"
            )
        try:
            symbols[parse_symbol(name)] = None
        except BadSymbol as error:
            raise BadSymbol(f"symbol {name[:40]!r}: {error}") from None
    if not symbols:
        raise BadSymbol("no symbol given: name at least one, as in quotes('AAPL')")
    return list(symbols)


def parse_time_ns(time: object, name: str) -> int:
    """Nanoseconds since the epoch of an aware datetime or of an int that is that already; else `BadStart`."""
    if isinstance(time, datetime):
        if time.tzinfo is None:
            raise BadStart(
                f"{name}={time.isoformat()} has no time zone: pass an aware datetime, as in tzinfo=UTC"
            )
        time_ns = (time - _EPOCH) // timedelta(microseconds=1) * 1000
    elif isinstance(time, int) and not isinstance(time, bool):
        if time in _LIKELY_NOT_NS:
            raise BadStart(f"{name}={time} looks like seconds, ms or us since the epoch: pass nanoseconds")
        time_ns = time
    else:
        raise BadStart(
            f"{name} is a {type(time).__name__}: pass an aware datetime or nanoseconds since the epoch"
        )
    if time_ns < 0:
        raise BadStart(f"{name}={time} lies before 1970, where no entry id reaches")
    if time_ns // _NS_PER_MS > _U64_MAX:
        raise BadStart(f"{name}={str(time)[:40]} lies beyond the largest entry id")
    return time_ns


def before(entry_id: EntryId) -> EntryId:
    """The id that stands directly before this one, so that reading after it includes this one."""
    if entry_id.n:
        return EntryId(entry_id.ms, entry_id.n - 1)
    return EntryId(entry_id.ms - 1, _U64_MAX) if entry_id.ms else ZERO_ID


def may_lie_in_a_hole(place: Place) -> bool:
    """Whether it is a time: the marker of a hole stands where the hole begins, which may be before that."""
    return place.anchor is Anchor.CHOSEN and place.after > ZERO_ID


def markers_before(stream: str, after: EntryId) -> Command:
    """The question whose reply `marker_of_hole` reads."""
    return ("XREVRANGE", stream, str(after), "-", "COUNT", MARKERS_BACK)


def marker_of_hole(symbol: str, after: EntryId, reply: Reply) -> EntryId | None:
    """The first of the markers that stand in a row up to here whose hole reaches behind here; None for none."""
    first = None
    for entry_id, fields in reply if isinstance(reply, list) else ():
        try:
            item = decode_entry(symbol, entry_id.decode(), fields)
        except BadEntry:
            break
        if not isinstance(item, Gap):
            break
        if item.to_ns > after.successor().time_ns:
            first = EntryId.parse(entry_id)
    return first


def questions(keys: Keyspace, symbol: str, wish: Wish | Place) -> list[Command]:
    """The commands whose replies `settle` needs, in order."""
    stream = keys.stream(symbol)
    if isinstance(wish, Place):
        return [markers_before(stream, wish.after)]
    if wish is Wish.NOW:
        return [("XINFO", "STREAM", stream)]
    # The cache before the stream: an entry that comes between the two is newer than either answer.
    return [("HGET", keys.latest, symbol), ("XREVRANGE", stream, "+", "-", "COUNT", 1)]


def settle(symbol: str, wish: Wish | Place, replies: Sequence[Reply]) -> Place:
    """The concrete place that the replies to `questions` amount to.

    A reply that is an error of the key (missing, wrong type) or a cache value that is no quote counts as none.
    """
    if isinstance(wish, Place):
        return _at_marker(symbol, wish, replies[0])
    if wish is Wish.NOW:
        facts = read_facts(replies[0])
        if facts is None:
            return Place(ZERO_ID, Anchor.CHOSEN, number=0)
        return Place(facts.last, Anchor.SEEN, number=facts.added)
    cached, newest = replies
    if isinstance(cached, bytes):
        quote = _cached_quote(symbol, cached)
        if quote is not None and quote.id is not None:
            return Place(EntryId.parse(quote.id), Anchor.SEEN, quote)
    if isinstance(newest, list) and newest:
        return Place(before(EntryId.parse(newest[0][0])), Anchor.CHOSEN)
    return Place(ZERO_ID, Anchor.CHOSEN)


def _at_marker(symbol: str, place: Place, reply: Reply) -> Place:
    """Directly before the marker of the hole that a time lies in; else where it was."""
    marker = marker_of_hole(symbol, place.after, reply)
    return place if marker is None else Place(before(marker), Anchor.CHOSEN)


def _cached_quote(symbol: str, value: bytes) -> Quote | None:
    try:
        quote = decode_latest(symbol, value)
        EntryId.parse(quote.id or "")
    except (BadEntry, ValueError):
        return None
    return quote
