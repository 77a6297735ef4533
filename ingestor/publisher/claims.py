"""Taking the writer's position on a new connection, and what a forgetful server means for the outbox.

Decides which markers go first when the server came back with less than it had acknowledged: after a failover, a
restart with a shorter file, an emptied database. Must never know how batches are made.
"""

from dataclasses import dataclass
from typing import Any

import hiredis

from ingestor.publisher.batch import Batch
from ingestor.publisher.calls import Calls
from ingestor.publisher.outbox import Outbox
from ingestor.publisher.recovery import ends_found, markers_of_losses
from ingestor.publisher.stamper import Stamper
from ingestor.redis_link import LinkFailure, RedisLink
from wire import EntryId


class Fenced(Exception):
    """A newer daemon writes this namespace; this one must not write any more."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """Batches that turned out to be applied, each with the notes on its entries, and what the server had forgotten
    of those that it acknowledged."""

    settled: list[tuple[Batch, list[Any]]]
    forgot: bool
    replayed_batches: int
    replayed_quotes: int
    lost_batches: int
    lost_quotes: int
    unbelievable: int | None = None
    """What the server said was applied last, where somebody has written into its count: that batch was never sent,
    or the streams reach beyond it."""

    @property
    def figures(self) -> dict[str, int]:
        """What is sent again, and what cannot be."""
        return {
            "replayed_batches": self.replayed_batches,
            "replayed_quotes": self.replayed_quotes,
            "lost_batches": self.lost_batches,
            "lost_quotes": self.lost_quotes,
        }


async def claim(
    link: RedisLink, calls: Calls, outbox: Outbox, stamper: Stamper, instance: str, now_s: float
) -> Claimed:
    """Take or confirm the position, and make the outbox ready to go on from where the server stands.

    Raises `Fenced` when somebody else has taken over, and `LinkFailure` when the server refuses.
    """
    asked, first = stamper.epoch or 0, outbox.first_number
    # The number before the first is left for markers, should the server have forgotten what came before.
    reply = await link.call(*calls.claim(asked, max(0, first - 2), instance, outbox.sent, outbox.answered))
    if isinstance(reply, hiredis.ReplyError):
        raise LinkFailure(str(reply))
    status, epoch, applied = reply
    if status == b"fenced":
        raise Fenced(f"epoch {epoch} writes this namespace, this daemon holds {asked}")
    unbelievable = applied if applied > outbox.sent else None
    if unbelievable is not None:
        applied = outbox.answered
    forgot = bool(asked) and applied < outbox.answered
    ends = await _ends(link, calls, sorted(stamper.symbols)) if forgot else {}
    notes = {
        batch.number: await _notes(link, calls, batch, epoch)
        for batch in outbox.unsettled
        if batch.is_proven(applied)
    }
    stamper.epoch = epoch
    resumed = outbox.resume(applied, now_s)
    markers = markers_of_losses(stamper, ends, [*resumed.replayed, *outbox.unsettled])
    held = [
        end for symbol, end in ends.items() if stamper.knows(symbol) and stamper.end_of(symbol)[1] is not None
    ]
    is_whole = bool(held) and None not in held and not markers.markers
    for symbol, last in ends.items():
        # A stream that is gone, with more in it than will be sent again, gets its marker now; or, where no number
        # is left for one, when its next entry finds that it is not there.
        if resumed.lost_batches or last is not None or symbol not in markers.symbols:
            stamper.found(symbol, last)
    if resumed.lost_batches:
        outbox.put_first(markers, first - 1)
    lost_batches, lost_quotes = resumed.lost_batches, resumed.lost_quotes
    if lost_batches and is_whole:
        # Streams and count move together, so where every stream still has its end, the count alone was touched.
        unbelievable, lost_batches, lost_quotes = applied, 0, 0
    return Claimed(
        [(batch, notes[batch.number]) for batch in resumed.settled],
        # The server's count stays behind until all is sent again; that is one loss, on however many connections.
        bool(resumed.replayed or lost_batches),
        len(resumed.replayed),
        sum(batch.quotes for batch in resumed.replayed),
        lost_batches,
        lost_quotes,
        unbelievable,
    )


async def _notes(link: RedisLink, calls: Calls, batch: Batch, epoch: int) -> list[Any]:
    """The number alone proves that a batch was applied, and not that each of its entries was accepted."""
    reply = await link.call(*calls.check(batch, epoch))
    if isinstance(reply, hiredis.ReplyError) or reply[0] != b"seen":
        raise LinkFailure(str(reply))
    return list(reply[1:])


async def _ends(link: RedisLink, calls: Calls, symbols: list[str]) -> dict[str, EntryId | None]:
    # In one call: on a long way, many would take longer than a server is given to answer.
    reply = await link.call(*calls.ends(symbols)) if symbols else []
    if isinstance(reply, hiredis.ReplyError):
        raise LinkFailure(str(reply))
    return ends_found(symbols, reply)
