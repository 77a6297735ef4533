"""Between the daemon and the vendor: names that lead nowhere, addresses where nobody is, certificates to refuse."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from simulator import AlpacaSimulator
from simulator.redis_server import RedisServer
from tests.scenario.account import is_well, metric
from tests.scenario.daemon import DaemonProcess
from tests.scenario.names import Names
from tests.scenario.streams import KEYS, numbered, numbers
from tests.scenario.tls import Authority, TlsFront

FEED = "/v2/iex"


def reasons(daemon: DaemonProcess) -> list[str]:
    """Why there was no connection, as told."""
    return [event["reason"] for event in daemon.events if event["event"] == "disconnected"]


@contextlib.contextmanager
def silent_address(port: int) -> Iterator[str]:
    """An address where a handshake of TCP is never answered: its queue of connections is full."""
    with contextlib.ExitStack() as stack:
        door = stack.enter_context(socket.socket())
        door.bind(("127.0.0.3", port))
        door.listen(0)
        for _ in range(8):
            guest = stack.enter_context(socket.socket())
            guest.setblocking(False)
            guest.connect_ex(("127.0.0.3", port))
        yield "127.0.0.3"


@pytest.mark.fault("S40")
async def test_a_name_that_does_not_resolve_is_tried_again_until_it_does(
    shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator, tmp_path: Path
) -> None:
    """Three attempts fail with the name in the reason; once it resolves, the daemon is live within seconds."""
    names = Names(tmp_path, "vendor.test")
    url = f"ws://vendor.test:{vendor.port}{FEED}"
    async with DaemonProcess(shared_server.url, url).with_environment(**names.environment) as daemon:
        await daemon.until(lambda status: status["reconnect_attempt"] == 3, 15)
        assert (await daemon.page("/readyz"))[0] == 503
        await daemon.told("disconnected", count=3)
        assert all("vendor.test does not resolve" in r for r in reasons(daemon)), reasons(daemon)
        names.lead_to("127.0.0.1")
        await daemon.until_live(10)
        assert len(vendor.connections) == 1
        await is_well(daemon)


@pytest.mark.fault("S40")
@pytest.mark.parametrize("variable", ["ALL_PROXY", "http_proxy"])
async def test_a_proxy_that_is_set_and_not_used_is_told_where_the_connection_fails(
    shared_server: RedisServer, redis: Redis, variable: str
) -> None:
    """With the variable's name, and without its value, which may hold a password."""
    daemon = DaemonProcess(shared_server.url, "ws://127.0.0.1:1/v2/iex")
    async with daemon.with_environment(**{variable: "http://user:proxy-password@10.0.0.1:3128"}):
        await daemon.until(lambda status: status["reconnect_attempt"] >= 1, 60)
        told = (await daemon.told("disconnected"))["reason"]
        assert f"{variable} is set, and the websocket does not use it" in told
        assert "proxy-password" not in daemon.log


@pytest.mark.fault("S40")
@pytest.mark.parametrize("first", ["::1", "127.0.0.2"])
async def test_an_address_where_nobody_listens_is_followed_by_the_next(
    shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator, tmp_path: Path, first: str
) -> None:
    """The first address of the name refuses, the second is the vendor: no attempt is lost."""
    names = Names(tmp_path, "vendor.test")
    names.lead_to(first, "127.0.0.1")
    url = f"ws://vendor.test:{vendor.port}{FEED}"
    async with DaemonProcess(shared_server.url, url).with_environment(**names.environment) as daemon:
        await daemon.until_live()
        assert reasons(daemon) == []
        await is_well(daemon)


@pytest.mark.fault("S40")
async def test_a_name_whose_addresses_all_refuse_is_told_with_each_of_them(
    shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator, tmp_path: Path
) -> None:
    """The reason names both; when the name leads elsewhere, the next attempt goes there."""
    names = Names(tmp_path, "vendor.test")
    names.lead_to("127.0.0.2", "127.0.0.4")
    url = f"ws://vendor.test:{vendor.port}{FEED}"
    async with DaemonProcess(shared_server.url, url).with_environment(**names.environment) as daemon:
        await daemon.until(lambda status: status["reconnect_attempt"] == 1, 15)
        told = (await daemon.told("disconnected"))["reason"]
        assert all(address in told for address in ("127.0.0.2", "127.0.0.4"))
        names.lead_to("127.0.0.1")
        await daemon.until_live(10)
        await is_well(daemon)


@pytest.mark.fault("S40")
async def test_an_address_that_answers_nothing_is_given_up_for_the_next(
    shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator, tmp_path: Path
) -> None:
    """The first address swallows every packet: the second is tried after a few seconds, within the same attempt."""
    names = Names(tmp_path, "vendor.test")
    url = f"ws://vendor.test:{vendor.port}{FEED}"
    with silent_address(vendor.port) as silent:
        names.lead_to(silent, "127.0.0.1")
        began_s = time.monotonic()
        async with DaemonProcess(shared_server.url, url).with_environment(**names.environment) as daemon:
            await daemon.until_live(20)
            assert reasons(daemon) == []
            assert vendor.actions[0].at_s - began_s >= 2.5
            await is_well(daemon)


@pytest.mark.fault("S41")
async def test_a_certificate_of_a_trusted_authority_opens_the_feed(
    shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator, tmp_path: Path
) -> None:
    """Over TLS quotes are stored as without it."""
    authority = Authority(tmp_path)
    async with TlsFront(vendor.port, authority.certificate()) as front:
        daemon = DaemonProcess(shared_server.url, front.url("wss", FEED))
        async with daemon.with_environment(SSL_CERT_FILE=str(authority.file)):
            await redis.sadd(KEYS.symbols, "AAPL")
            await daemon.until(lambda status: status["live"] == 1, 15)
            vendor.send(numbered("AAPL", 1, 100), frame_size=10)
            await daemon.until(lambda status: status["stored"] == 100)
            assert await numbers(redis, "AAPL") == list(range(1, 101))
            await is_well(daemon)


@pytest.mark.fault("S41")
@pytest.mark.parametrize(
    ("flaw", "says"), [("expired", "expired"), ("host", "mismatch"), ("authority", "local issuer")]
)
async def test_a_certificate_that_proves_nothing_is_refused_until_it_is_replaced(
    shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator, tmp_path: Path, flaw: str, says: str
) -> None:
    """Expired, for another host, by a stranger: nothing of ours goes there, the reason says why, and it heals."""
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    bad = {
        "expired": authority.certificate(expired=True),
        "host": authority.certificate("elsewhere.test"),
        "authority": stranger.certificate(),
    }[flaw]
    async with TlsFront(vendor.port, bad) as front:
        daemon = DaemonProcess(shared_server.url, front.url("wss", FEED))
        async with daemon.with_environment(SSL_CERT_FILE=str(authority.file)):
            await daemon.until(lambda status: status["reconnect_attempt"] == 2, 15)
            assert len(vendor.actions) == 0
            assert front.accepted == 2
            await daemon.told("disconnected", count=2)
            assert all("certificate" in r.lower() and says in r for r in reasons(daemon)), reasons(daemon)
            front.present(authority.certificate())
            await daemon.until_live(15)
            _, metrics = await daemon.page("/metrics")
            assert metric(metrics, "quotebus_source_connect_failures_total", status="unreachable") >= 2
            await is_well(daemon)


@pytest.mark.fault("S41")
async def test_a_handshake_that_stalls_is_given_up_within_ten_seconds(
    shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator, tmp_path: Path
) -> None:
    """Connected, and not a byte of TLS comes back: another attempt follows, and works."""
    authority = Authority(tmp_path)
    async with TlsFront(vendor.port, authority.certificate()) as front:
        front.stalls = True
        daemon = DaemonProcess(shared_server.url, front.url("wss", FEED))
        async with daemon.with_environment(SSL_CERT_FILE=str(authority.file)):
            await daemon.until(lambda status: status["reconnect_attempt"] == 1, 30)
            front.stalls = False
            await daemon.until_live(10)
            assert front.accepted == 2
            await daemon.told("disconnected")
            assert len(reasons(daemon)) == 1
            await is_well(daemon)


@pytest.mark.fault("S41")
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x15\x03\x03\x00\x02\x02\x28",
        b"\x16\x03\x03\x40\x00" + bytes(100),
    ],
    ids=["hangs up", "speaks plainly", "alert", "half a hello"],
)
async def test_a_server_that_breaks_the_handshake_off_is_tried_again(
    shared_server: RedisServer, redis: Redis, answer: bytes
) -> None:
    """No TLS, an alert, or the end of the connection: attempts that failed, and no more than that."""
    asked = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        with contextlib.suppress(OSError):
            await reader.read(1000)
            writer.write(answer)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with DaemonProcess(shared_server.url, f"wss://127.0.0.1:{port}{FEED}") as daemon:
            await daemon.until(lambda status: status["reconnect_attempt"] == 3, 30)
            assert 2 <= asked <= 3
            await daemon.told("disconnected", count=3)
            assert all(reasons(daemon))
            await is_well(daemon)
