"""The vendor ends the connection: between frames, within one, with a code, at the door, again and again."""

import asyncio
import contextlib

import pytest
from redis.asyncio import Redis

from simulator import AlpacaSimulator, RefuseUpgrade, SimulatorSettings
from simulator.redis_server import RedisServer
from tests.scenario.account import descriptors, is_well, metric
from tests.scenario.daemon import DaemonProcess
from tests.scenario.streams import gaps, numbered, numbers, stored, subscribed
from wire import Gap


@pytest.mark.fault("S01")
async def test_a_reset_between_frames_is_a_marked_hole_and_a_prompt_return(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Back within a second; what came before and after is stored once, in order, around one marker."""
    await subscribed(redis, vendor, "AAPL")
    vendor.send(numbered("AAPL", 1, 100), frame_size=7)
    await daemon.until(lambda status: status["stored"] == 100)
    vendor.drop(ghost=False)
    await vendor.wait_for(lambda: len(vendor.closed) == 1 and vendor.symbols == {"AAPL"}, 10)
    assert _reconnect_took_s(vendor) < 3.0  # half a second, on a machine that others use as well
    vendor.send(numbered("AAPL", 101, 100), frame_size=7)
    await daemon.until(lambda status: status["stored"] == 200)
    assert await numbers(redis, "AAPL") == list(range(1, 201))
    assert [type(item) is Gap for item in await stored(redis, "AAPL")].index(True) == 100
    assert [gap.reason for gap in await gaps(redis, "AAPL")] == ["feed_disconnected"]
    _, metrics = await daemon.page("/metrics")
    assert metric(metrics, "quotebus_source_disconnects_total", reason="lost") == 1
    assert metric(metrics, "quotebus_gap_markers_total") == 1
    await is_well(daemon)


@pytest.mark.fault("S02")
async def test_half_a_frame_is_dropped_and_the_whole_ones_before_it_are_kept(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """The connection ends within a frame of fifty: none of them is stored, and the hole is marked."""
    await subscribed(redis, vendor, "AAPL")
    vendor.send(numbered("AAPL", 1, 50))
    vendor.half_frame(numbered("AAPL", 51, 50), ghost=False)
    await vendor.wait_for(lambda: len(vendor.closed) == 1 and vendor.symbols == {"AAPL"}, 10)
    vendor.send(numbered("AAPL", 101, 50))
    status = await daemon.until(lambda status: status["stored"] == 100)
    assert status["received"] == 100
    assert await numbers(redis, "AAPL") == [*range(1, 51), *range(101, 151)]
    (gap,) = await gaps(redis, "AAPL")
    first, last = numbered("AAPL", 50, 1)[0], numbered("AAPL", 101, 1)[0]
    assert (gap.from_ns, gap.to_ns, gap.reason) == (first.t_ns, last.t_ns, "feed_disconnected")
    await is_well(daemon)


@pytest.mark.fault("S06")
@pytest.mark.parametrize("code", [1000, 1001])
async def test_a_close_in_good_order_is_no_error(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator, code: int
) -> None:
    """The daemon is back at once, with its symbols, and no line of the log is an error."""
    await subscribed(redis, vendor, "AAPL")
    vendor.close(code)
    await vendor.wait_for(lambda: len(vendor.closed) == 1 and vendor.symbols == {"AAPL"}, 10)
    assert _reconnect_took_s(vendor) < 3.0
    assert not [event for event in daemon.events if event["level"] == "error"]
    _, metrics = await daemon.page("/metrics")
    assert metric(metrics, "quotebus_source_disconnects_total", reason=str(code)) == 1
    await is_well(daemon)


@pytest.mark.fault("S07")
async def test_a_close_with_a_reason_is_counted_and_the_pauses_grow(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """1011, 1012 and 1013, one after the other without a quote between them: each is told, each pause is longer."""
    for n, code in enumerate((1011, 1012, 1013), start=1):
        vendor.close(code)
        await vendor.wait_for(lambda n=n: len(vendor.closed) == n, 10)  # type: ignore[misc]
        await vendor.wait_for(lambda: bool(vendor.connections) and vendor.connections[0].authenticated, 10)
    _, metrics = await daemon.page("/metrics")
    for code in (1011, 1012, 1013):
        assert metric(metrics, "quotebus_source_disconnects_total", reason=str(code)) == 1
    await daemon.told("disconnected", count=3)
    told = [event["reason"] for event in daemon.events if event["event"] == "disconnected"]
    assert [str(code) in reason for code, reason in zip((1011, 1012, 1013), told, strict=True)] == [True] * 3
    pauses_s = _pauses_s(vendor)
    # Between half of 0.5, 1 and 2 s and all of it.
    assert [pause > least for pause, least in zip(pauses_s, (0.25, 0.5, 1.0), strict=True)] == [True] * 3
    await is_well(daemon)


@pytest.mark.fault("S15")
async def test_errors_of_the_vendor_s_own_are_met_with_growing_pauses(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Three times 500 with no quote between them: three reconnections, each later than the one before."""
    for n in range(1, 4):
        vendor.error(500)
        await vendor.wait_for(lambda n=n: len(vendor.closed) == n, 10)  # type: ignore[misc]
        await vendor.wait_for(lambda: bool(vendor.connections) and vendor.connections[0].authenticated, 10)
    assert [p > least for p, least in zip(_pauses_s(vendor), (0.25, 0.5, 1.0), strict=True)] == [True] * 3
    assert [closed.clean for closed in vendor.closed] == [True] * 3
    _, metrics = await daemon.page("/metrics")
    assert metric(metrics, "quotebus_source_errors_total", code="500") == 3
    await is_well(daemon)


@pytest.mark.fault("S39")
async def test_a_vendor_that_drops_everybody_is_not_stormed_and_leaks_nothing(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Dropped after each login for six seconds: a handful of attempts, and as many open files as before."""
    await subscribed(redis, vendor, "AAPL")
    before = descriptors(daemon)
    loop = asyncio.get_running_loop()
    until_s = loop.time() + 6.0
    while loop.time() < until_s:
        if vendor.connections and vendor.connections[0].authenticated:
            vendor.drop(ghost=False)
        await asyncio.sleep(0.01)
    connects = sum(action.kind == "connect" for action in vendor.actions)
    # At best after 0.25, 0.5, 1, 2 and 4 s.
    assert 3 <= connects <= 6
    await daemon.until(lambda status: status["live"] == 1, 40)
    assert abs(descriptors(daemon) - before) <= 2
    vendor.send(numbered("AAPL", 1, 5))
    await daemon.until(lambda status: status["stored"] == 5 and status["reconnect_attempt"] == 0)
    await is_well(daemon)


@pytest.mark.fault("S42")
@pytest.mark.parametrize(
    ("refusal", "least_s"),
    [
        (RefuseUpgrade(503, (("Retry-After", "2"),)), 2.0),
        (RefuseUpgrade(503), 0.25),
        (RefuseUpgrade(200, (("Content-Type", "text/html"),), "<h1>Please log in</h1>" * 1000), 0.25),
    ],
    ids=["503 later", "503", "page"],
)
async def test_an_upgrade_that_is_answered_with_something_else_is_told_and_tried_again(
    shared_server: RedisServer, redis: Redis, refusal: RefuseUpgrade, least_s: float
) -> None:
    """The status is in the reason and in the metrics, the page is not in the log, and patience is as asked for."""
    async with AlpacaSimulator(SimulatorSettings()) as vendor:
        vendor.arm(refusal, times=1)
        async with DaemonProcess(shared_server.url, vendor.url("iex")) as daemon:
            await daemon.until_live(15)
            refused, opened = [a for a in vendor.actions if a.kind in ("upgrade", "connect")][:2]
            assert opened.at_s - refused.at_s >= least_s
            assert "log in" not in daemon.log
            await daemon.told("disconnected")
            (told,) = [event["reason"] for event in daemon.events if event["event"] == "disconnected"]
            assert told == f"HTTP {refusal.status} instead of a websocket"
            _, metrics = await daemon.page("/metrics")
            status = str(refusal.status)
            assert metric(metrics, "quotebus_source_connect_failures_total", status=status) == 1
            await is_well(daemon)


@pytest.mark.fault("S42")
async def test_no_redirect_is_followed(shared_server: RedisServer, redis: Redis) -> None:
    """Where a 302 leads nobody is seen: the keys go to the configured host or nowhere."""
    async with (
        AlpacaSimulator(SimulatorSettings()) as elsewhere,
        AlpacaSimulator(SimulatorSettings()) as vendor,
    ):
        vendor.arm(RefuseUpgrade(302, (("Location", elsewhere.url("iex")),)), times=2)
        async with DaemonProcess(shared_server.url, vendor.url("iex")) as daemon:
            await daemon.until_live(15)
            _, metrics = await daemon.page("/metrics")
            assert metric(metrics, "quotebus_source_connect_failures_total", status="302") == 2
            assert len(elsewhere.actions) == 0
            await is_well(daemon)


ANSWERS = {
    "nothing": b"",
    "another protocol": b"SSH-2.0-OpenSSH_9.2p1\r\n",
    "no status": b"HTTP/1.1\r\n\r\n",
    "a switch to nothing": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "a wrong proof": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n",
    "bytes": bytes(range(256)) * 16,
    "headers without end": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500_000,
    "an odd pause": b"HTTP/1.1 503 Later\r\nRetry-After: \xb2\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.fault("S42")
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
async def test_whoever_is_no_websocket_server_is_left_in_peace(
    shared_server: RedisServer, redis: Redis, answer: bytes
) -> None:
    """Whatever the upgrade is answered with: two attempts at their pace, the same process, no file left open."""
    asked = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        with contextlib.suppress(OSError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with DaemonProcess(shared_server.url, f"ws://127.0.0.1:{port}/v2/iex") as daemon:
            await daemon.until(lambda status: status["reconnect_attempt"] == 1, 15)
            before = descriptors(daemon)
            await daemon.until(lambda status: status["reconnect_attempt"] == 3, 15)
            assert 2 <= asked <= 3
            assert abs(descriptors(daemon) - before) <= 2
            _, metrics = await daemon.page("/metrics")
            assert "quotebus_source_connects_total 0.0" in metrics
            await is_well(daemon)


def _reconnect_took_s(vendor: AlpacaSimulator) -> float:
    opened = [action.at_s for action in vendor.actions if action.kind == "connect"]
    return opened[-1] - vendor.closed[-1].at_s


def _pauses_s(vendor: AlpacaSimulator) -> list[float]:
    opened = [action.at_s for action in vendor.actions if action.kind == "connect"]
    return [after - closed.at_s for closed, after in zip(vendor.closed, opened[1:], strict=True)]
