"""Copies on disk of what is in hand: of batches on their way to Redis, and of those that were read back.

Decides which batches need one, and where in the queue it goes, so that a later life reads all of them in order. A
copy whose file is gone is none. Must never know when to write, nor what a batch means.
"""

from collections.abc import Callable, Container
from functools import partial

from ingestor.publisher.batch import Batch, to_record
from ingestor.publisher.disk import Disk
from ingestor.publisher.outbox import Outbox
from ingestor.publisher.readback import ReadBack
from ingestor.spool.records import Item


class Copies:
    """A batch's `position` is where its copy lies; None without one."""

    def __init__(self, outbox: Outbox, back: ReadBack) -> None:
        self._outbox = outbox
        self._back = back

    @property
    def in_hand(self) -> list[Batch]:
        """All batches that memory holds and that come before what is unread, in order."""
        return [*self._outbox.unsettled, *self._back.ahead]

    @property
    def missing(self) -> list[Batch]:
        """Those of them that the disk does not have."""
        return [batch for batch in self.in_hand if batch.position is None]

    def renounce(self, positions: Container[int] | None = None) -> None:
        """What lies at these positions is not there any more; None for all of them."""
        for batch in self.in_hand:
            if positions is None or batch.position in positions:
                batch.position = None

    async def write(self, disk: Disk) -> list[int]:
        """Write those that are missing, in the order in which they will be read after a restart; the positions of
        those that were stored meanwhile. Raises OSError, with none written."""
        in_hand = self.in_hand
        without = [batch for batch in in_hand if batch.position is None]
        write: Callable[[list[Item]], list[int]]
        if not self._back.unread and in_hand[-len(without) :] == without:
            written = without
            write = partial(disk.spool.append, is_copy=True, now_ns=disk.now_ns())
        else:
            # They go before others that are on disk already: sent again, or stamped anew, or their file was lost.
            last = max(i for i, batch in enumerate(in_hand) if batch.position is None)
            written = in_hand[: last + 1]
            earlier = frozenset(batch.position for batch in written if batch.position is not None)
            write = partial(disk.spool.prepend, instead_of=earlier)
        positions = await disk.call(write, [to_record(batch) for batch in written])
        for batch, position in zip(written, positions, strict=True):
            batch.position = position
        waiting = {id(batch) for batch in self.in_hand}
        return [
            position for batch, position in zip(written, positions, strict=True) if id(batch) not in waiting
        ]
