"""What a worker of a group gets, and what it can ask about its group.

Decides the names of these fields. Must never know how an entry came here.
"""

import msgspec

from wire import Gap, Quote


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """One entry that this worker is to handle, and to acknowledge with `GroupStream.ack` when it is done.

    `id` is the entry's id, None for a gap that this worker found itself, which needs no acknowledgement.
    `times_delivered` counts how often the entry was handed to any worker of the group, this time included; an
    entry that is delivered again and again ends its workers or is never acknowledged. `is_claimed` tells that
    another worker had it and did not acknowledge it in time.
    """

    item: Quote | Gap
    symbol: str
    id: str | None
    times_delivered: int = 1
    is_claimed: bool = False


class Member(msgspec.Struct, frozen=True, gc=False):
    """One worker as Redis knows it: what it has not acknowledged, and seconds since it last asked for entries."""

    name: str
    pending: int
    idle_s: float


class GroupLag(msgspec.Struct, frozen=True):
    """How far a group is behind in one stream.

    `entries` can still be read and were delivered to no worker; with `is_exact` False there are at least so many.
    `pending` were delivered and are not acknowledged. `ms` is venue time from the last entry delivered to the last
    one there is. `members` are the workers, the one with most pending entries first. `exists` is False while there
    is no such stream or group; all else is 0 then.
    """

    symbol: str
    exists: bool
    entries: int
    is_exact: bool
    pending: int
    ms: float
    members: tuple[Member, ...]
