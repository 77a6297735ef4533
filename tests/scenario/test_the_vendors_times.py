"""Venue times that a stream's ids must outlive: out of order, equal, repeated, years off, or none at all."""

import random
import time

import msgpack
import pytest
from redis.asyncio import Redis

from simulator import AlpacaSimulator, SimQuote
from tests.ingestor.vendor import packed, quote
from tests.scenario.account import is_well, metric
from tests.scenario.daemon import DaemonProcess
from tests.scenario.streams import BASE_NS, gaps, numbered, numbers, stored, subscribed
from wire import EntryId, Quote

ADJUSTED = "quotebus_ids_adjusted_total"


async def adjusted(daemon: DaemonProcess, cause: str) -> float:
    """How many ids were moved for this cause."""
    return metric((await daemon.page("/metrics"))[1], ADJUSTED, cause=cause)


async def ids(redis: Redis, symbol: str) -> list[EntryId]:
    """The ids of a stream's quotes."""
    return [EntryId.parse(item.id or "") for item in await stored(redis, symbol)]


@pytest.mark.fault("S28")
async def test_quotes_out_of_order_are_stored_as_they_arrived_under_rising_ids(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """A thousand quotes shuffled within half a second: arrival order, own times, every moved id counted."""
    await subscribed(redis, vendor, "AAPL")
    rng = random.Random(28)
    sent = [
        SimQuote("AAPL", BASE_NS + n * 10_000_000 + rng.randrange(500_000_000), 1.0, n, 1.1, 1)
        for n in range(1, 1001)
    ]
    vendor.send(sent, frame_size=10)
    await daemon.until(lambda status: status["stored"] == 1000)
    found = [item for item in await stored(redis, "AAPL") if isinstance(item, Quote)]
    assert [(q.bid_size, q.time_ns) for q in found] == [(q.bid_size, q.t_ns) for q in sent]
    in_order = await ids(redis, "AAPL")
    assert in_order == sorted(set(in_order))
    newest_ns, behind = 0, 0
    for q in sent:
        behind += q.t_ns < newest_ns
        newest_ns = max(newest_ns, q.t_ns)
    assert await adjusted(daemon, "out_of_order") == behind > 100
    await is_well(daemon)


@pytest.mark.fault("S29")
async def test_different_quotes_of_one_instant_are_all_stored(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Fifty quotes with one nanosecond among them: fifty entries, in their order, with that time."""
    await subscribed(redis, vendor, "AAPL")
    vendor.send(numbered("AAPL", 1, 50, step_ns=0), frame_size=7)
    await daemon.until(lambda status: status["stored"] == 50)
    assert await numbers(redis, "AAPL") == list(range(1, 51))
    assert {q.time_ns for q in await stored(redis, "AAPL") if isinstance(q, Quote)} == {BASE_NS}
    assert await adjusted(daemon, "tie") == 49
    await is_well(daemon)


@pytest.mark.fault("S30")
async def test_a_quote_that_the_vendor_repeats_after_a_reconnection_is_stored_again_and_counted(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """What was received is stored: the repeat stands behind the marker, with the time that tells it for one."""
    await subscribed(redis, vendor, "AAPL")
    vendor.send(numbered("AAPL", 1, 5))
    await daemon.until(lambda status: status["stored"] == 5)
    vendor.drop(ghost=False)
    await vendor.wait_for(lambda: len(vendor.closed) == 1 and vendor.symbols == {"AAPL"}, 10)
    vendor.send(numbered("AAPL", 4, 4))
    await daemon.until(lambda status: status["stored"] == 9)
    assert await numbers(redis, "AAPL") == [1, 2, 3, 4, 5, 4, 5, 6, 7]
    times_ns = [q.time_ns for q in await stored(redis, "AAPL") if isinstance(q, Quote)]
    assert times_ns[3:5] == times_ns[5:7]
    assert len(await gaps(redis, "AAPL")) == 1
    assert await adjusted(daemon, "out_of_order") + await adjusted(daemon, "tie") == 2
    await is_well(daemon)


@pytest.mark.fault("S31")
async def test_times_that_lie_far_off_poison_no_stream(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """A year and a century ahead, and in 1970: stored with their times, ids no more than seconds ahead."""
    await subscribed(redis, vendor, "AAPL")
    year_ns = 365 * 86_400 * 10**9
    odd_ns = [time.time_ns() + year_ns, time.time_ns() + 100 * year_ns, 0, 1]
    for n, time_ns in enumerate(odd_ns):
        vendor.send_raw(packed(quote("AAPL", time_ns, bs=2 * n + 1)))
        vendor.send([SimQuote("AAPL", time.time_ns(), 1.0, 2 * n + 2, 1.1, 1)])
    await daemon.until(lambda status: status["stored"] == 2 * len(odd_ns))
    assert await numbers(redis, "AAPL") == list(range(1, 2 * len(odd_ns) + 1))
    found = [q.time_ns for q in await stored(redis, "AAPL") if isinstance(q, Quote)]
    assert found[::2] == odd_ns
    assert (await ids(redis, "AAPL"))[-1].ms <= time.time_ns() // 10**6 + 6000
    assert await adjusted(daemon, "clamped") == 2
    await is_well(daemon)


@pytest.mark.fault("S31")
async def test_times_that_are_none_are_counted_and_leave_their_neighbours_alone(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Beyond 64 bits of nanoseconds, before 1970, text that is no time, a number of no year, nothing at all."""
    await subscribed(redis, vendor, "AAPL")
    times = [
        msgpack.Timestamp(2**40, 0),
        msgpack.Timestamp(-(2**40), 0),
        msgpack.Timestamp(-1, 999_999_999),
        "1969-12-31T23:59:59Z",
        "yesterday",
        17_630_000_040_000_000_000,
        5,
        1_763_000_004.5,
        None,
        b"",
    ]
    frame = [quote("AAPL", BASE_NS, bs=1)]
    frame += [{**quote("AAPL", bs=0), "t": odd} for odd in times]
    timeless = quote("AAPL", bs=0)
    del timeless["t"]
    vendor.send_raw(packed(*frame, timeless, quote("AAPL", BASE_NS + 1, bs=2)))
    await daemon.until(lambda status: status["stored"] == 2)
    assert await numbers(redis, "AAPL") == [1, 2]
    _, metrics = await daemon.page("/metrics")
    assert metric(metrics, "quotebus_quotes_rejected_total", reason="bad_time") == len(times) + 1
    assert [gap.reason for gap in await gaps(redis, "AAPL")] == ["rejected"]
    await is_well(daemon)
