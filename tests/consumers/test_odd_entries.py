"""Whatever stands in a stream or a cache, readers go on, and what they hand out can be looked at from all sides."""

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from consumers import Bus, Gap, MarketDataService, Quote
from consumers.analysis import to_pandas
from consumers.reading.entry import decode_entry
from simulator.redis_server import RedisServer
from tests.consumers.conftest import FAST, KEYS, T0_NS, Writer, numbers, take
from tests.consumers.service.conftest import read
from wire import BadEntry, decode_gap, decode_latest, decode_quote

FAR = 10**23
ODD: tuple[Any, ...] = (
    *(None, True, "", "x", -1, 0, 0.5, 1e308, -1e308, [], {}, [None], ["R"] * 99),
    *(2**53 + 1, 2**63 - 1, 2**63, -(2**63), 2**64, FAR, -FAR, 10**400),
)
GOOD = (187.12, 7, "V", 187.13, 200, "N", ["R"], "C", T0_NS, 8052)
NAMES = ("bp", "bs", "bx", "ap", "as", "ax", "c", "z", "t", "r")
values = st.one_of(
    st.sampled_from(ODD),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.none(),
)


def looked_at(item: Any) -> None:
    """Ask for everything that there is of an item."""
    for name in dir(type(item)):
        if not name.startswith("_"):
            value = getattr(item, name)
            if callable(value):
                continue
            repr(value)
    repr(item)
    hash(item)


@pytest.mark.fault("Q10")
@given(st.lists(values, min_size=8, max_size=11), values, values)
def test_no_value_of_an_entry_raises_out_of_a_property(row: list[Any], low: Any, high: Any) -> None:
    """A quote, a quote of the cache, a marker: it is read and can be looked at, or it is no entry."""
    marker = {"from": low, "to": high, "reason": "x", "missing": row[0], "epoch": row[1]}
    cached = {"S": "AAPL", "id": row[0], **dict(zip(NAMES, row, strict=False))}
    reads: tuple[Callable[[], Any], ...] = (
        lambda: decode_quote("AAPL", "1-1", json.dumps(row)),
        lambda: decode_latest("AAPL", json.dumps(cached)),
        lambda: decode_gap("AAPL", "1-1", json.dumps(marker)),
    )
    for decoded in reads:
        with contextlib.suppress(BadEntry):
            item = decoded()
            looked_at(item)
            to_pandas([item], of=type(item))


@given(values, values)
def test_no_quote_or_gap_that_somebody_makes_raises_out_of_a_property(first: Any, second: Any) -> None:
    """As far as its fields are of their types."""
    times = [value for value in (first, second) if isinstance(value, int)]
    for time_ns in times:
        looked_at(Quote("AAPL", None, 1.0, 1, "V", 1e308, 1, "V", None, None, time_ns, times[-1]))
        looked_at(Gap(symbol="AAPL", id=None, from_ns=time_ns, to_ns=-time_ns, reason="x"))


@pytest.mark.parametrize("fields", [[b"q", b""], [b"x", b"y"], [b"gap", b"\xff"], [b"q", b"[" * 9999]])
def test_an_entry_of_any_fields_is_read_or_refused(fields: list[bytes]) -> None:
    """With an error that says which one it is."""
    with pytest.raises(BadEntry, match="AAPL entry 1-1"):
        decode_entry("AAPL", "1-1", fields)


async def odd_entries(writer: Writer) -> int:
    """Fill a stream with one entry for each odd value in each position, a good quote before and behind."""
    key = KEYS.stream("AAPL")
    await writer.raw("XADD", key, "1-1", "q", json.dumps(GOOD))
    pipe = writer.redis.pipeline()
    for number in range(len(GOOD)):
        for odd in ODD:
            row = [*GOOD[:number], odd, *GOOD[number + 1 :]]
            pipe.execute_command("XADD", key, "2-*", "q", json.dumps(row))
    for odd in ODD:
        for marker in ({"from": odd, "to": T0_NS}, {"from": T0_NS, "to": odd, "missing": odd, "epoch": odd}):
            value = json.dumps({"reason": "x", **marker})
            pipe.execute_command("XADD", key, "2-*", "gap", value)
    await pipe.execute()
    await writer.raw("XADD", key, "3-1", "q", json.dumps([*GOOD[:1], 8, *GOOD[2:]]))
    return len(ODD) * (len(GOOD) + 2) + 2


@pytest.mark.fault("Q10")
async def test_every_way_of_reading_goes_on_behind_odd_entries(
    bus: Bus, server: RedisServer, writer: Writer
) -> None:
    """And each item that is handed out can be looked at, and stands in a frame."""
    await odd_entries(writer)
    found: dict[str, list[Any]] = {"loop": [], "batches": [], "newest": [], "group": []}
    async with asyncio.timeout(60):
        ways: dict[str, Any] = {
            "loop": bus.quotes("AAPL", start="earliest"),
            "batches": bus.quotes("AAPL", start="earliest", max_age_s=1e9).batches(),
            "newest": bus.newest("AAPL", start="earliest"),
            "group": bus.group("g", "AAPL", start="earliest", auto_ack=True),
        }
        for name, stream in ways.items():
            async with contextlib.aclosing(aiter(stream)) as items:
                async for item in items:
                    for each in item if isinstance(item, list) else [item]:
                        found[name].append(getattr(each, "item", getattr(each, "quote", each)))
                    if getattr(found[name][-1], "bid_size", None) == 8:
                        break
    found["history"] = [item async for item in bus.history("AAPL", 0)]
    async with MarketDataService(redis_url=server.url, reconnect=FAST) as service:
        count = sum(isinstance(item, Quote) for item in found["loop"])
        found["service"] = list(await read(service.stream_quotes("AAPL", start="earliest"), count))
    for brought in found.values():
        for item in brought:
            looked_at(item)
        to_pandas(brought, of=Quote)
        to_pandas(brought, of=Gap)
    assert numbers(found["loop"]) == numbers(found["history"])
    assert len(found["loop"]) == len(found["group"]) > 100
    assert all(found.values())


@pytest.mark.fault("Q10")
@pytest.mark.parametrize("name", [*NAMES, "id", "S"])
async def test_an_odd_value_of_the_cache_raises_nowhere(
    bus: Bus, server: RedisServer, redis: Redis, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is no quote then, or one that can be looked at; for a snapshot, for quality and for a service as well."""
    caplog.set_level(logging.ERROR)
    async with MarketDataService(redis_url=server.url, reconnect=FAST) as service:
        for key in (KEYS.latest, KEYS.rest):
            for odd in ODD:
                cached = {"S": "AAPL", "id": "1-1", **dict(zip(NAMES, GOOD, strict=True)), name: odd}
                await redis.hset(key, "AAPL", json.dumps(cached))
                for quote in (
                    await bus.latest("AAPL"),
                    *(await bus.latest_many("AAPL", max_age_s=1)).values(),
                ):
                    if quote is not None:
                        looked_at(quote)
                looked_at((await bus.quality("AAPL"))["AAPL"])
                stale = (await service.get_latest_quotes("AAPL")).stale
                assert all(str(why) for why in stale.values())
                async with contextlib.aclosing(bus.quotes("AAPL", start="snapshot")) as stream:
                    item = await stream.get(timeout_s=0)
                    if item is not None:
                        looked_at(item)
            await redis.delete(key)


@pytest.mark.fault("Q10")
async def test_a_quote_beyond_the_year_2262_is_none(
    bus: Bus, redis: Redis, writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    """The daemon stores none; what another writer leaves is skipped, counted and told."""
    key = KEYS.stream("AAPL")
    for entry_id, time_ns in (("1-1", T0_NS), ("1-2", FAR), ("1-3", T0_NS + 1)):
        await writer.raw("XADD", key, entry_id, "q", json.dumps([*GOOD[:8], time_ns, 0]))
    await redis.hset(KEYS.latest, "AAPL", json.dumps({"S": "AAPL", "id": "1-2", "bp": 1.0, "t": FAR}))
    stream = bus.quotes("AAPL", start="earliest")
    assert [item.time_ns for item in await take(aiter(stream), 2) if isinstance(item, Quote)] == [
        T0_NS,
        T0_NS + 1,
    ]
    assert stream.unreadable == 1
    assert await bus.latest("AAPL") is None
    assert "AAPL entry 1-2 is not readable" in caplog.text
    await stream.aclose()
