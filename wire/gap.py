"""The gap marker: what stands in a stream where quotes are missing.

Decides its spelling only. Whether there is a gap is for the daemon (missed at the vendor) or the reader
(trimmed before it was read) to know.
"""

import msgspec

from wire.quote import UNREADABLE, BadEntry
from wire.values import MAX_TIME_NS, TimeNs


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of venue time whose quotes are not in the stream, or not all of them.

    `from_ns` and `to_ns` are nanoseconds since the epoch, UTC. `id` is the marker's own entry id, or None when
    the reader found the gap itself. `missing` is how many quotes were received and given up, or None where nobody
    can know.
    """

    symbol: str
    id: str | None
    from_ns: int
    to_ns: int
    reason: str
    epoch: int | None = None
    missing: int | None = None

    @property
    def duration_s(self) -> float:
        """Length of the stretch in seconds, never negative."""
        return min(max(self.to_ns - self.from_ns, 0), 2 * MAX_TIME_NS) / 1e9


class _GapBody(msgspec.Struct, rename={"from_ns": "from", "to_ns": "to"}):
    from_ns: TimeNs
    to_ns: TimeNs
    reason: str
    epoch: int | None = None
    missing: int | msgspec.UnsetType | None = msgspec.UNSET


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_GapBody).decode


def encode_gap(
    from_ns: int, to_ns: int, reason: str, epoch: int | None, *, missing: int | None = None
) -> bytes:
    """The value of a marker's `gap` field; `missing` stands there only where it is known."""
    return _encode(_GapBody(from_ns, to_ns, reason, epoch, msgspec.UNSET if missing is None else missing))


def decode_gap(symbol: str, entry_id: str, value: bytes | str) -> Gap:
    """Read a marker; `BadEntry` if it is none."""
    try:
        body = _decode(value)
    except UNREADABLE as error:
        raise BadEntry(symbol, entry_id, str(error)) from None
    return Gap(
        symbol=symbol,
        id=entry_id,
        from_ns=body.from_ns,
        to_ns=body.to_ns,
        reason=body.reason,
        epoch=_count(body.epoch),
        missing=_count(body.missing),
    )


def _count(value: object) -> int | None:
    """A number that can be one; what another writer may leave in its place is as good as none."""
    return value if isinstance(value, int) and 0 <= value <= MAX_TIME_NS else None
