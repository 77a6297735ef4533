"""Holds every wanted symbol against Alpaca's list of assets: the shell around listing and question.

Decides when to look, to ask and to write. Must never hold anything up: the daemon starts, subscribes and stops the
same whether there is a list or not, and without one nothing is claimed. One daemon asks for all of an account, once
a day and only when something is wanted (`quotes:assets:ACCOUNT`).
"""

import asyncio
import sys
import time
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, RedisError

from ingestor.assets.listing import BadListing, Listing, remarks
from ingestor.assets.question import ASK_S, AssetsUnavailable, Question
from ingestor.feed.session import Credentials, CredentialsUnavailable
from ingestor.journal import Journal
from wire import Keyspace, account_of

LOOK_EVERY_S: Final = 0.5
KEPT_S: Final = 86_400
CLAIM_S: Final = int(ASK_S) + 30
OTHERS_S: Final = 5.0
"""Between two looks whether somebody else's question has been answered."""
STILL_THERE_S: Final = 60.0
"""Between two looks whether the list that was read is still on Redis."""
FAILED_S: Final = (60.0, 3600.0)
"""Before the next question after a failure, doubling up to the last."""
REFUSED_S: Final = 3600.0
CHUNK: Final = 1000
MANY: Final = 2000
TOLD: Final = 20
"""Symbols with a remark that are told one by one when it is new."""

_CLAIM: Final = resources.files("ingestor.assets").joinpath("claim.lua").read_text()


class AssetCheck:
    """`url` is where to ask: empty for Alpaca's own hosts, None for not at all; `feed` is Alpaca's, or `custom`."""

    def __init__(
        self,
        client: "Redis",
        keys: Keyspace,
        journal: Journal,
        credentials: Callable[[], Credentials],
        wanted: Callable[[], tuple[str, ...]],
        note_remarks: Callable[[Mapping[str, str]], None],
        *,
        url: str | None,
        feed: str,
        instance: str,
    ) -> None:
        self._client = client
        self._keys = keys
        self._journal = journal
        self._credentials = credentials
        self._wanted = wanted
        self._note_remarks = note_remarks
        self._url = url
        self._feed = feed
        self._instance = instance
        self._question = Question()
        self._listing: Listing | None = None
        self._listing_until_s = 0.0
        self._look_at_s = 0.0
        self._failures = 0
        self._held_against: tuple[tuple[str, ...], Listing | None] = ((), None)
        self._remarks: dict[str, str] = {}

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            wanted = self._wanted()
            if wanted and self._url is not None and time.monotonic() >= self._look_at_s:
                await self._obtain(self._url)
            await self._hold_against(wanted)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _hold_against(self, wanted: tuple[str, ...]) -> None:
        before, listing = self._held_against
        if wanted is before and listing is self._listing:
            return
        listing = self._listing
        if len(wanted) > MANY:
            # A thread gives the interpreter back every few milliseconds; the quotes cannot wait for a long list.
            found = await asyncio.to_thread(remarks, wanted, listing, self._feed)
        else:
            found = remarks(wanted, listing, self._feed)
        self._held_against = wanted, listing
        if found != self._remarks:
            new = [symbol for symbol in found if found[symbol] != self._remarks.get(symbol)]
            for symbol in new[:TOLD]:
                self._journal.note_rarely("symbol_remark", symbol, reason=found[symbol])
            self._remarks = found
            self._note_remarks(found)

    async def _obtain(self, url: str) -> None:
        """Have the list, or know when to look again."""
        now_s = time.monotonic()
        try:
            credentials = self._credentials()
        except CredentialsUnavailable:
            self._look_at_s = now_s + OTHERS_S  # whoever connects the feed tells of it
            return
        key = self._keys.assets(account_of(credentials.key))
        try:
            self._look_at_s = now_s + await self._look(key, credentials, url)
        except NoPermissionError as refusal:
            self._look_at_s = now_s + REFUSED_S
            self._unavailable(f"{key}: {refusal}; deploy/acl has the right to it")
        except (RedisError, OSError, TimeoutError):
            self._look_at_s = now_s + OTHERS_S  # the publisher tells that Redis is away

    async def _look(self, key: str, credentials: Credentials, url: str) -> float:
        """One look at the key; seconds until the next."""
        left_s = await self._read(key)
        if left_s is not None:
            return min(left_s, STILL_THERE_S)
        own_left_s = self._listing_until_s - time.monotonic()
        if self._listing is not None and own_left_s > 1:
            # The database was emptied; that is no reason to ask again.
            await self._write(key, self._listing, int(own_left_s))
            return STILL_THERE_S
        left_s = float(await self._client.eval(_CLAIM, 1, key, self._instance, str(CLAIM_S)))
        if left_s > 0:
            return min(left_s, OTHERS_S)
        try:
            listing = Listing.of(await self._question.ask(credentials, url))
        except (AssetsUnavailable, BadListing) as why:
            return await self._failed(key, str(why), is_refused=getattr(why, "is_refused", False))
        self._failures = 0
        self._take(listing, KEPT_S)
        await self._write(key, listing, KEPT_S)
        self._journal.note("assets_listed", count=len(listing.values))
        return STILL_THERE_S

    async def _read(self, key: str) -> float | None:
        """Take the list that stands there; the seconds for which it does, or None when there is none."""
        pipe = self._client.pipeline(transaction=False)
        pipe.hget(key, "asked")
        pipe.ttl(key)
        asked, left_s = await pipe.execute()
        if asked is None or left_s < 0:
            return None
        if self._listing is None or time.monotonic() >= self._listing_until_s:
            values: dict[str, str] = {}
            # Fields in lower case are ours.
            names: list[Any] = [name for name in await self._client.hkeys(key) if not name[:1].islower()]
            for start in range(0, len(names), CHUNK):
                some = names[start : start + CHUNK]
                found: list[Any] = await self._client.hmget(key, some)
                values |= {
                    name.decode("utf-8", "replace"): sys.intern(value.decode("utf-8", "replace"))
                    for name, value in zip(some, found, strict=True)
                    if value is not None
                }
            self._take(Listing(values), left_s)
        return float(left_s)

    def _take(self, listing: Listing, left_s: float) -> None:
        self._listing, self._listing_until_s = listing, time.monotonic() + left_s

    async def _write(self, key: str, listing: Listing, left_s: int) -> None:
        """In pieces, since no single command may hold up the server; `asked` comes last and makes it whole."""
        await self._client.delete(key)
        pairs = list(listing.values.items())
        for start in range(0, len(pairs), CHUNK):
            pipe = self._client.pipeline(transaction=False)
            pipe.hset(key, mapping=dict(pairs[start : start + CHUNK]))
            pipe.expire(key, CLAIM_S)
            await pipe.execute()
        pipe = self._client.pipeline(transaction=False)
        pipe.hset(key, "asked", str(time.time_ns() // 1_000_000_000))
        pipe.expire(key, left_s)
        await pipe.execute()

    async def _failed(self, key: str, reason: str, *, is_refused: bool) -> float:
        first_s, last_s = FAILED_S
        pause_s = REFUSED_S if is_refused else min(last_s, first_s * 2.0 ** min(self._failures, 10))
        self._failures += 1
        if time.monotonic() >= self._listing_until_s:
            self._listing = None
        self._unavailable(reason, next_in_s=int(pause_s))
        pipe = self._client.pipeline(transaction=False)
        pipe.hset(key, "failed", reason)
        pipe.expire(key, int(pause_s))
        await pipe.execute()
        return min(pause_s, OTHERS_S)

    def _unavailable(self, reason: str, **details: Any) -> None:
        self._journal.note_rarely("assets_unavailable", "alpaca", reason=reason[:200], **details)
