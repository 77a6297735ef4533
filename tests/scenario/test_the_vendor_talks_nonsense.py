"""Frames that are none, elements that are none, values beyond all bounds: each costs itself and nothing else."""

import json
import math
import random
from typing import Any

import msgpack
import pytest
from redis.asyncio import Redis

from simulator import AlpacaSimulator
from simulator.frames import encode_items, join_items
from simulator.redis_server import RedisServer
from tests.ingestor.vendor import packed, quote
from tests.scenario.account import is_well, lags_over, metric
from tests.scenario.conftest import until
from tests.scenario.daemon import DaemonProcess
from tests.scenario.streams import BASE_NS, KEYS, gaps, numbered, numbers, stored, subscribed
from wire import Quote

UNREADABLE = "quotebus_source_unreadable_messages_total"
REJECTED = "quotebus_quotes_rejected_total"
BREACHES = {
    "a kind of frame that there is not": b"\x83\x00",
    "a masked frame": b"\x82\x81\x00\x00\x00\x00\x90",
    "a ping in pieces": b"\x09\x00",
    "a length in too many bytes": b"\x82\x7e\x00\x01\x90",
    "closed with 1006, which nobody may send": b"\x88\x02\x03\xee",
    "closed with half a code": b"\x88\x01\x03",
}
SYMBOLS = ("AAPL", "MSFT", "NVDA", "TSLA", "GOOG")


def element(n: int, symbol: str = "AAPL", **fields: Any) -> dict[str, Any]:
    """A quote with the running number n, in the vendor's words, with these fields changed."""
    return quote(symbol, BASE_NS + n * 1_000_003, **{"bs": n, **fields})


async def scrape(daemon: DaemonProcess) -> str:
    """The metrics."""
    return (await daemon.page("/metrics"))[1]


@pytest.mark.fault("S17")
async def test_damaged_frames_among_good_ones_cost_only_themselves(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Fifty of a thousand frames are damaged: all others are stored, and one line of the log has a short sample."""
    await subscribed(redis, vendor, "AAPL")
    rng = random.Random(17)
    whole = []
    for n in range(1, 1001):
        frame = join_items(encode_items(numbered("AAPL", n, 1), "msgpack"), "msgpack")
        assert isinstance(frame, bytes)
        if n % 20:
            whole.append(n)
            vendor.send_raw(frame)
        elif n % 40:
            vendor.send_raw(frame[: rng.randrange(1, len(frame))])
        else:
            # A byte that no msgpack has, in place of the array, of a key, or of a value.
            cut = frame.index(rng.choice([b"\x91", b"\xa1T", b"\xa1S"]))
            vendor.send_raw(frame[:cut] + b"\xc1" + frame[cut + 1 :])
    await daemon.until(lambda status: status["stored"] == len(whole))
    assert await numbers(redis, "AAPL") == whole
    assert metric(await scrape(daemon), UNREADABLE) == 50
    await daemon.told("unreadable_message")
    (told,) = [event for event in daemon.events if event["event"] == "unreadable_message"]
    assert 0 < len(bytes.fromhex(told["sample"])) <= 256
    assert len(vendor.closed) == 0
    await is_well(daemon)


@pytest.mark.fault("S18")
async def test_json_where_msgpack_was_agreed_is_counted(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Text frames of quotes, of errors, and of nothing like it: counted, without any consequence."""
    await subscribed(redis, vendor, "AAPL")
    vendor.send_raw(join_items(encode_items(numbered("AAPL", 1, 3), "json"), "json"))
    vendor.send_raw(json.dumps([{"T": "error", "code": 406, "msg": "connection limit exceeded"}]))
    vendor.send_raw("hello")
    vendor.send(numbered("AAPL", 4, 3))
    await daemon.until(lambda status: status["stored"] == 3)
    assert await numbers(redis, "AAPL") == [4, 5, 6]
    assert metric(await scrape(daemon), UNREADABLE) == 3
    assert len(vendor.closed) == 0
    await is_well(daemon)


@pytest.mark.fault("S19")
async def test_frames_of_nothing_are_nothing(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """No bytes, an empty list, lists in lists, each a hundred times: quotes before and after are stored."""
    await subscribed(redis, vendor, "AAPL")
    vendor.send(numbered("AAPL", 1, 3))
    for _ in range(100):
        for frame in (b"", "", packed(), packed([], [[]])):
            vendor.send_raw(frame)
    vendor.send(numbered("AAPL", 4, 3))
    await daemon.until(lambda status: status["stored"] == 6)
    assert await numbers(redis, "AAPL") == [1, 2, 3, 4, 5, 6]
    assert len(vendor.closed) == 0
    await is_well(daemon)


@pytest.mark.fault("S21")
async def test_bombs_are_refused_before_they_go_off(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Endless nesting, sizes beyond all memory, millions of tiny elements: counted, in no time and no space."""
    await subscribed(redis, vendor, "AAPL")
    before = _resident_bytes(daemon)
    bombs = [
        b"\x91" * 1_000_000,
        b"\x91" + b"\x81\xa1T" * 1_000_000,
        b"\xdd\xff\xff\xff\xff",
        b"\x91\xdf\xff\xff\xff\xff",
        b"\x91\xc9\xff\xff\xff\xff\x01",
        b"\xdd" + (3_000_000).to_bytes(4, "big") + b"\xc0" * 3_000_000,
        b"\xdd" + (600_000).to_bytes(4, "big") + b"\x81\xa1T\xa1b" * 600_000,
    ]
    for bomb in bombs:
        vendor.send_raw(bomb)
    vendor.send(numbered("AAPL", 1, 3))
    await daemon.until(lambda status: status["stored"] == 3)
    assert metric(await scrape(daemon), UNREADABLE) == len(bombs)
    assert await lags_over(daemon, 0.25) == 0
    assert _resident_bytes(daemon) - before < 64 * 2**20
    assert len(vendor.closed) == 0
    await is_well(daemon)


@pytest.mark.fault("S22")
async def test_elements_with_values_of_the_wrong_type_take_no_neighbour_along(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Text, truth, lists, bytes and times where a price or a name belongs, and what is no message at all."""
    await subscribed(redis, vendor, "AAPL")
    rejected: list[Any] = [
        element(0, bp="187.12"),
        element(0, ap=True),
        element(0, bp=[1.0]),
        element(0, ap=b"1"),
        element(0, bp=msgpack.Timestamp(1, 0)),
        element(0, S=None),
        element(0, S=b"AAPL"),
    ]
    unreadable: list[Any] = [None, 7, "quote", []]
    wrong = rejected + unreadable
    frame = [element(1)]
    for n, bad in enumerate(wrong, start=2):
        frame += [bad, element(n)]
    vendor.send_raw(packed(*frame))
    await daemon.until(lambda status: status["stored"] == len(wrong) + 1)
    assert await numbers(redis, "AAPL") == list(range(1, len(wrong) + 2))
    assert metric(await scrape(daemon), UNREADABLE) == len(unreadable)
    assert (await daemon.status())["rejected"] == len(rejected)
    # One for each whose symbol is known, in its place.
    assert len(await gaps(redis, "AAPL")) == len(rejected) - 2
    await daemon.told("unreadable_message")
    (told,) = [event for event in daemon.events if event["event"] == "unreadable_message"]
    assert told["first"]
    await is_well(daemon)


@pytest.mark.fault("S23")
async def test_prices_that_are_no_number_are_rejected_and_all_others_are_kept_to_the_last_bit(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """NaN, the infinities and what is below zero are counted; all others, from the largest to zero, come back."""
    await subscribed(redis, vendor, "AAPL")
    nothing = [math.nan, math.inf, -math.inf]
    finite = [1e308, 5e-324, 2.2250738585072014e-308, 187.12]
    nothing += [-1.5, -5e-324]
    frame = [element(0, bp=price) for price in nothing] + [element(0, ap=price) for price in nothing]
    frame += [element(n, bp=price, ap=price) for n, price in enumerate(finite, start=1)]
    frame += [element(len(finite) + 1, bp=-0.0)]
    vendor.send_raw(packed(*frame))
    await daemon.until(lambda status: status["stored"] == len(finite) + 1)
    assert metric(await scrape(daemon), REJECTED, reason="bad_price") == 2 * len(nothing)
    found = [item for item in await stored(redis, "AAPL") if isinstance(item, Quote)]
    assert [(item.bid_price, item.ask_price) for item in found[:-1]] == [(p, p) for p in finite]
    texts = str(await redis.xrange(KEYS.stream("AAPL"))) + str(await redis.hgetall(KEYS.latest))
    assert "nan" not in texts.lower()
    assert "inf" not in texts.lower()
    await is_well(daemon)


@pytest.mark.fault("S24")
async def test_odd_markets_are_stored_as_they_are(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """One-sided, locked, crossed, a spread of a million: what the venue says is the truth."""
    await subscribed(redis, vendor, "AAPL")
    markets = [(5.0, 5.0), (6.0, 5.0), (0.01, 1_000_000.0), (0.0, 5.0), (5.0, 0.0)]
    vendor.send_raw(packed(*(element(n, bp=bid, ap=ask) for n, (bid, ask) in enumerate(markets, start=1))))
    await daemon.until(lambda status: status["stored"] == len(markets))
    found = [item for item in await stored(redis, "AAPL") if isinstance(item, Quote)]
    assert [(q.bid_price or 0.0, q.ask_price or 0.0) for q in found] == markets
    assert (await daemon.status())["rejected"] == 0
    await is_well(daemon)


@pytest.mark.fault("S25")
async def test_what_is_new_is_passed_over_and_what_is_missing_is_left_out(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Unknown fields are ignored, unknown messages counted by letter, quotes without symbol or time left out."""
    await subscribed(redis, vendor, "AAPL")
    nameless, timeless = element(0), element(0)
    del nameless["S"], timeless["t"]
    bare = {"T": "q", "S": "AAPL", "t": element(2)["t"], "bs": 2}
    trades = [{"T": "t", "S": "AAPL", "p": 1.0}, {"T": "zz", "new": {"deep": [1]}}, {"T": "t"}]
    vendor.send_raw(packed(element(1, x={"new": 1}), nameless, bare, *trades, timeless, element(3)))
    await daemon.until(lambda status: status["stored"] == 3)
    assert await numbers(redis, "AAPL") == [1, 2, 3]
    text = await scrape(daemon)
    assert metric(text, REJECTED, reason="bad_symbol") == metric(text, REJECTED, reason="bad_time") == 1
    assert metric(text, "quotebus_source_unknown_messages_total", type="t") == 2
    assert metric(text, "quotebus_source_unknown_messages_total", type="zz") == 1
    await is_well(daemon)


@pytest.mark.fault("S26", "S27")
async def test_a_symbol_that_nobody_asked_for_makes_no_key(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Plain, empty, 200 characters, look-alikes, names of our own keys, a thousand at once: no key, no metric."""
    await subscribed(redis, vendor, "AAPL")
    await until(lambda: _is_reported(redis))
    keys = set(await redis.keys("*"))
    odd = [
        "MSFT",
        "",
        "A" * 200,
        "ААPL",
        "AAPL\u200b",
        "AAPL:x",
        "../latest",
        "{x}",
        "quotes:latest",
        "\r\nFLUSHALL",
    ]
    odd += [f"SYM{n:04d}" for n in range(1000)]
    vendor.send_raw(packed(element(1), *(element(0, symbol) for symbol in odd), element(2)))
    await daemon.until(lambda status: status["stored"] == 2)
    text = await scrape(daemon)
    # The one of 200 characters is not even a name.
    assert metric(text, REJECTED, reason="not_subscribed") == len(odd) - 1
    assert metric(text, REJECTED, reason="bad_symbol") == 1
    assert set(await redis.keys("*")) - keys <= {KEYS.stream("AAPL"), KEYS.latest}
    assert await redis.hkeys(KEYS.latest) == ["AAPL"]
    assert "SYM0" not in text
    await is_well(daemon)


@pytest.mark.fault("S20")
async def test_a_frame_of_a_hundred_thousand_quotes_is_taken_whole(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """One message of 8 MB, then one with an element that is none: all stored, and the loop is never held long."""
    await subscribed(redis, vendor, *SYMBOLS)
    vendor.send([quote for symbol in SYMBOLS for quote in numbered(symbol, 1, 20_000)])
    await daemon.until(lambda status: status["stored"] == 100_000, 40)
    assert await lags_over(daemon, 0.25) == 0
    again = (element(n, symbol) for symbol in SYMBOLS for n in range(20_001, 30_001))
    vendor.send_raw(packed(None, *again))
    await daemon.until(lambda status: status["stored"] == 150_000, 40)
    text = await scrape(daemon)
    assert metric(text, UNREADABLE) == 1
    assert metric(text, "quotebus_source_largest_frame_quotes") == 100_000
    assert await lags_over(daemon, 0.25) == 0
    for symbol in SYMBOLS:
        assert await numbers(redis, symbol) == list(range(1, 30_001))
    await is_well(daemon)


@pytest.mark.fault("S20")
async def test_a_frame_beyond_all_bounds_ends_the_connection_and_says_so(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """More than 64 MiB are not read: closed with 1009, the reason told, back with a marker."""
    await subscribed(redis, vendor, "AAPL")
    vendor.send(numbered("AAPL", 1, 3))
    await daemon.until(lambda status: status["stored"] == 3)
    before = _resident_bytes(daemon)
    vendor.send_raw(bytes(65 * 2**20))
    await vendor.wait_for(lambda: len(vendor.closed) == 1, 15)
    await vendor.wait_for(lambda: vendor.symbols == {"AAPL"}, 10)
    assert _resident_bytes(daemon) - before < 64 * 2**20
    await daemon.told("disconnected")
    (told,) = [event["reason"] for event in daemon.events if event["event"] == "disconnected"]
    assert told.startswith("given up with 1009")
    vendor.send(numbered("AAPL", 4, 3))
    await daemon.until(lambda status: status["stored"] == 6)
    assert [gap.reason for gap in await gaps(redis, "AAPL")] == ["feed_disconnected"]
    await is_well(daemon)


@pytest.mark.fault("S44")
async def test_a_compressed_frame_that_nobody_agreed_to_is_not_inflated(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Sent small, inflated a thousand times: it ends with the reason, memory stays as it was, quotes flow again."""
    await subscribed(redis, vendor, "AAPL")
    before = _resident_bytes(daemon)
    vendor.compressed(2**28)
    await vendor.wait_for(lambda: len(vendor.closed) == 1, 10)
    await vendor.wait_for(lambda: vendor.symbols == {"AAPL"}, 10)
    assert _resident_bytes(daemon) - before < 64 * 2**20
    await daemon.told("disconnected")
    (told,) = [event["reason"] for event in daemon.events if event["event"] == "disconnected"]
    assert told.startswith("given up with 1002")
    assert metric(await scrape(daemon), "quotebus_source_disconnects_total", reason="1002") == 1
    vendor.send(numbered("AAPL", 1, 3))
    await daemon.until(lambda status: status["stored"] == 3)
    await is_well(daemon)


@pytest.mark.fault("S07", "S17")
@pytest.mark.parametrize("wire", BREACHES.values(), ids=BREACHES)
async def test_a_breach_of_the_websocket_protocol_costs_the_connection_and_not_the_daemon(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator, wire: bytes
) -> None:
    """The end is told with its code, counted, and the feed is back with a marker; the same process goes on."""
    await subscribed(redis, vendor, "AAPL")
    vendor.send(numbered("AAPL", 1, 3))
    await daemon.until(lambda status: status["stored"] == 3)
    vendor.send_wire(wire)
    await vendor.wait_for(lambda: len(vendor.closed) == 1, 10)
    await vendor.wait_for(lambda: vendor.symbols == {"AAPL"}, 10)
    await daemon.told("disconnected")
    (told,) = [event["reason"] for event in daemon.events if event["event"] == "disconnected"]
    code = "1006" if wire.endswith(b"\x03\xee") else "1002"
    assert f"with {code}" in told
    assert metric(await scrape(daemon), "quotebus_source_disconnects_total", reason=code) == 1
    vendor.send(numbered("AAPL", 4, 3))
    await daemon.until(lambda status: status["stored"] == 6)
    assert [gap.reason for gap in await gaps(redis, "AAPL")] == ["feed_disconnected"]
    await is_well(daemon)


@pytest.mark.fault("S21")
async def test_a_vendor_that_talks_nothing_but_nonsense_fills_no_log(
    shared_server: RedisServer, daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Five thousand bad frames and invented kinds: a bounded number of lines, and metrics of bounded size."""
    await subscribed(redis, vendor, "AAPL")
    for n in range(5000):
        vendor.send_raw(packed({"T": f"kind-{n}"}) if n % 2 else b"\xc1" * (n % 50))
    vendor.send(numbered("AAPL", 1, 3))
    await daemon.until(lambda status: status["stored"] == 3)
    text = await scrape(daemon)
    assert text.count("quotebus_source_unknown_messages_total{") <= 64
    await is_well(daemon)


def _resident_bytes(daemon: DaemonProcess) -> int:
    assert daemon.process is not None
    with open(f"/proc/{daemon.process.pid}/status") as status:  # noqa: PTH123 - no file, a window
        (line,) = [line for line in status if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024


async def _is_reported(redis: Redis) -> bool:
    return await redis.exists(KEYS.status, KEYS.subscriptions, KEYS.events) == 3
