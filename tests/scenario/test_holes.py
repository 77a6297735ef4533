"""Where markers of missing quotes stand: between the last quote before the hole and the first after it."""

import pytest
from redis.asyncio import Redis

from simulator import AlpacaSimulator
from simulator.frames import encode_items, join_items
from simulator.redis_server import RedisServer
from tests.scenario.daemon import DaemonProcess
from tests.scenario.streams import KEYS, gaps, numbered, stored, subscribed
from wire import Gap, Quote


async def test_a_hole_keeps_its_place_among_quotes_that_wait_for_a_frozen_redis(
    own_server: RedisServer, own_redis: Redis, own_daemon: DaemonProcess, vendor: AlpacaSimulator
) -> None:
    """Quotes, a lost feed and more quotes while nothing can be written: the marker stands between the two."""
    await subscribed(own_redis, vendor, "AAPL", "MSFT")
    for symbol in ("AAPL", "MSFT"):
        vendor.send(numbered(symbol, 1, 10))
    await own_daemon.until(lambda status: status["stored"] == 20)
    own_server.pause()
    try:
        vendor.send(numbered("AAPL", 11, 6000), frame_size=50)
        await own_daemon.until(lambda status: status["received"] == 6020)
        vendor.drop(ghost=False)
        await vendor.wait_for(lambda: len(vendor.closed) == 1 and vendor.symbols == {"AAPL", "MSFT"}, 10)
        vendor.send(numbered("AAPL", 6011, 10))
        await own_daemon.until(lambda status: status["received"] == 6030)
    finally:
        own_server.resume()
    await own_daemon.until(lambda status: status["stored"] + status["already_stored"] == 6030, 15)
    assert _shape(await stored(own_redis, "AAPL")) == [(1, 6010), "feed_disconnected", (6011, 6020)]
    assert _shape(await stored(own_redis, "MSFT")) == [(1, 10)]
    (gap,) = await gaps(own_redis, "AAPL")
    assert (gap.from_ns, gap.to_ns) == (numbered("AAPL", 6010, 1)[0].t_ns, numbered("AAPL", 6011, 1)[0].t_ns)
    vendor.send(numbered("MSFT", 11, 1))
    await own_daemon.until(lambda status: status["stored"] + status["already_stored"] == 6031)
    assert _shape(await stored(own_redis, "MSFT")) == [(1, 10), "feed_disconnected", (11, 11)]


async def test_a_quote_that_trails_an_unsubscription_does_not_close_the_hole_behind_it(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """One last quote after the acknowledgement is stored, and what is missing after it is marked."""
    await subscribed(redis, vendor, "AAPL", "MSFT")
    vendor.send(numbered("AAPL", 1, 5))
    await daemon.until(lambda status: status["stored"] == 5)
    await redis.srem(KEYS.symbols, "AAPL")
    await daemon.until(lambda status: status["live"] == 1)
    vendor.send_raw(join_items(encode_items(numbered("AAPL", 6, 1), "msgpack"), "msgpack"))
    await daemon.until(lambda status: status["stored"] == 6)
    await subscribed(redis, vendor, "AAPL", "MSFT")
    vendor.send(numbered("AAPL", 10, 5))
    await daemon.until(lambda status: status["stored"] == 11)
    assert _shape(await stored(redis, "AAPL")) == [(1, 6), "not_subscribed", (10, 14)]
    (gap,) = await gaps(redis, "AAPL")
    assert (gap.from_ns, gap.to_ns) == (numbered("AAPL", 6, 1)[0].t_ns, numbered("AAPL", 10, 1)[0].t_ns)


@pytest.mark.parametrize("before", [0, 5])
@pytest.mark.fault("K26")
async def test_quotes_refused_by_a_key_of_the_wrong_type_are_a_marked_hole(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator, before: int
) -> None:
    """Once the key is mended, a marker tells that quotes were refused, whether or not some were stored before."""
    stream = KEYS.stream("AAPL")
    if not before:
        await redis.set(stream, "oops")
    await subscribed(redis, vendor, "AAPL")
    if before:
        vendor.send(numbered("AAPL", 1, before))
        await daemon.until(lambda status: status["stored"] == before)
        await redis.rename(stream, "aside")
        await redis.set(stream, "oops")
    for n in range(3):
        vendor.send(numbered("AAPL", 1 + before + n * 5, 5))
        await daemon.until(lambda status, n=n: status["rejected"] == 5 + n * 5)  # type: ignore[misc]
    await redis.delete(stream)
    if before:
        await redis.rename("aside", stream)
    vendor.send(numbered("AAPL", 16 + before, 5))
    await daemon.until(lambda status: status["stored"] == before + 5)
    behind = (16 + before, 20 + before)
    expected = [(1, before), "refused_by_redis", behind] if before else ["refused_by_redis", behind]
    assert _shape(await stored(redis, "AAPL")) == expected
    (gap,) = await gaps(redis, "AAPL")
    first, next_ = numbered("AAPL", 1 + before, 1)[0].t_ns, numbered("AAPL", 16 + before, 1)[0].t_ns
    assert gap.from_ns <= first < gap.to_ns == next_


def _shape(items: list[Quote | Gap]) -> list[tuple[int, int] | str]:
    """Unbroken runs of numbers as (first, last), and the reasons of the markers between them."""
    shape: list[tuple[int, int] | str] = []
    for item in items:
        last = shape[-1] if shape else ""
        if isinstance(item, Gap):
            shape.append(item.reason)
        elif isinstance(last, tuple) and item.bid_size == last[1] + 1:
            shape[-1] = (last[0], last[1] + 1)
        else:
            shape.append((number := int(item.bid_size or 0), number))
    return shape
