"""Counts what is stored a few times a second, and tells what came of it.

Decides how often, and how rejected quotes are told. Must never decide what is wrong (`watching.storing` does), and
never touches Redis: it reads counters, writes notes, and hands the verdict to those who show it.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from typing import Final

from ingestor.feed.connection import FeedConnection
from ingestor.journal import Journal
from ingestor.publisher.publisher import Publisher
from ingestor.subscriptions.reconciler import Reconciler
from ingestor.subscriptions.states import Unstored
from ingestor.watching.storing import CATCHING_UP, NOT_STORING, Counted, Storing, Verdict

LOOK_EVERY_S: Final = 0.25
DROPPED_ON_ARRIVAL: Final = ("queue_full", "spool_full")
"""Quotes that are given up because no more fit; for the other reasons it is old ones that go."""


class StorageWatch:
    """Watches one publisher. `verdict` is that of the last look."""

    def __init__(
        self, feed: FeedConnection, publisher: Publisher, reconciler: Reconciler, journal: Journal
    ) -> None:
        self._feed = feed
        self._publisher = publisher
        self._reconciler = reconciler
        self._journal = journal
        self._storing = Storing()
        self._told: dict[str, int] = {}
        self._told_fields: Counter[tuple[str, str]] = Counter()
        self._told_spellings: Counter[str] = Counter()
        self._since_s = 0.0
        self.verdict = Verdict()

    @property
    def rejected(self) -> dict[str, int]:
        """Quotes that cannot be stored, by reason."""
        rejected = dict(self._publisher.stamper.counts.rejected)
        for reason, count in self._publisher.counts.rejected.items():
            rejected[reason] = rejected.get(reason, 0) + count
        return rejected

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            self.look(time.monotonic(), time.time_ns())
            await asyncio.sleep(LOOK_EVERY_S)

    def look(self, now_s: float, unix_ns: int) -> None:
        """One look: `now_s` monotonic, `unix_ns` wall time."""
        rejected = self.rejected
        before, self.verdict = self.verdict, self._storing.look(self._counted(now_s, unix_ns, rejected))
        self._tell_verdict(before, now_s)
        self._tell_rejections(rejected)
        self._tell_oddities()
        self._reconciler.note_unstored(Unstored(self.verdict.symbols, self.verdict.all_symbols))

    def _counted(self, now_s: float, unix_ns: int, rejected: Mapping[str, int]) -> Counted:
        publisher = self._publisher
        counts, holdings = publisher.counts, publisher.holdings
        oldest_ns = holdings.oldest_received_ns
        return Counted(
            now_s=now_s,
            stored=counts.stored + counts.already_stored,
            waiting=holdings.queued + holdings.spooled + holdings.unanswered,
            oldest_s=None if oldest_ns is None else (unix_ns - oldest_ns) / 1e9,
            lost={
                **rejected,
                **{why: counts.dropped[why] for why in DROPPED_ON_ARRIVAL if why in counts.dropped},
                "unreadable": self._feed.counts.broken_quotes,
            },
            received=self._feed.counts.quotes,
            unclear=self._feed.counts.unclear,
            refusing=publisher.verdicts.refusing,
            rejected=publisher.stamper.rejected,
            is_away=publisher.away_reason is not None,
            spool_problem=publisher.spooling.problem,
        )

    def _tell_verdict(self, before: Verdict, now_s: float) -> None:
        state, reason = self.verdict.state, self.verdict.reason
        if state == before.state:
            return
        if before.state is None:
            self._since_s = now_s
        if state == NOT_STORING:
            self._journal.note("not_storing", "error", reason=reason)
        elif state == CATCHING_UP:
            self._journal.note("catching_up", "warning", reason=reason)
        else:
            self._journal.note("storing", lasted_s=round(now_s - self._since_s, 1))

    def _tell_rejections(self, rejected: Mapping[str, int]) -> None:
        for reason, count in rejected.items():
            if count > self._told.get(reason, 0):
                publisher = self._publisher
                found = publisher.counts.rejections.get(reason) or publisher.stamper.rejections.get(reason)
                symbol, words = found or ("", "")
                self._journal.note_rarely(
                    "quotes_rejected", reason, symbol=symbol[:64], reason=words[:200], total=count
                )
        self._told = dict(rejected)

    def _tell_oddities(self) -> None:
        fields = self._feed.counts.odd_fields
        if fields != self._told_fields:
            for (name, oddity), count in (fields - self._told_fields).items():
                self._journal.note_rarely("odd_field", name, oddity=oddity, count=count)
            self._told_fields = fields.copy()
        spellings = self._publisher.stamper.counts.spellings
        if spellings != self._told_spellings:
            for spelling in spellings - self._told_spellings:
                if spelling != "timestamp":
                    self._journal.note_rarely("odd_time", spelling, "info", count=spellings[spelling])
            self._told_spellings = spellings.copy()
