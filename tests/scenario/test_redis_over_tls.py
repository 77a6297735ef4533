"""TLS on the way to Redis: certificates that are not good enough, and their renewal."""

import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from redis.asyncio import Redis

from simulator import AlpacaSimulator
from simulator.redis_server import RedisServer
from tests.scenario.conftest import until
from tests.scenario.daemon import DaemonProcess
from tests.scenario.proxy import Proxy
from tests.scenario.streams import KEYS, state_is, subscribed
from tests.scenario.tls import Authority, TlsFront
from tests.scenario.traffic import Traffic, is_quiet, unready

CLIENT_HELLO = b"\x16\x03"
"""A TLS record of type handshake begins so (RFC 8446, 5.1); no Redis command does."""
REASONS = {
    "expired": "certificate has expired",
    "another host's": "Hostname mismatch",
    "another authority's": "unable to get local issuer certificate",
}
PARTS = {"quotebus-control", "quotebus-publisher", "quotebus-watch"}


@dataclass(slots=True)
class Secured:
    """A Redis that can be reached over TLS alone, and the wire to it."""

    front: TlsFront
    wire: Proxy
    good: trustme.LeafCert
    bad: dict[str, trustme.LeafCert]
    authority: Authority

    @property
    def url(self) -> str:
        """The address, with the authority that is to be trusted."""
        return f"rediss://localhost:{self.wire.port}/0?ssl_ca_certs={self.authority.file}"

    @property
    def heads(self) -> list[bytes]:
        """What every connection sent first."""
        return [head for head in (*self.wire.heads, *(p.head for p in self.wire.passages)) if head]


@pytest.fixture
async def secured(own_server: RedisServer, tmp_path: Path) -> AsyncIterator[Secured]:
    """A front with a good certificate, and bad ones at hand."""
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    good = authority.certificate()
    bad = {
        "expired": authority.certificate(expired=True),
        "another host's": authority.certificate("redis.example"),
        "another authority's": other.certificate(),
    }
    async with TlsFront(own_server.port, good) as front, Proxy(front.port) as wire:
        yield Secured(front, wire, good, bad, authority)


@contextlib.asynccontextmanager
async def only_tls_was_spoken(secured: Secured) -> AsyncIterator[None]:
    """At the end every connection of the daemon has begun with a handshake; none fell back to plain text."""
    yield
    assert secured.heads
    assert all(head.startswith(CLIENT_HELLO) for head in secured.heads)


@pytest.mark.fault("K39")
@pytest.mark.parametrize("kind", REASONS)
async def test_a_certificate_that_is_not_good_keeps_the_daemon_from_starting_its_work(
    secured: Secured, own_redis: Redis, vendor: AlpacaSimulator, kind: str
) -> None:
    """The reason is told, nothing is sent in the clear nor asked of the vendor; with a good one it begins."""
    await own_redis.sadd(KEYS.symbols, "AAPL")
    secured.front.present(secured.bad[kind])
    async with only_tls_was_spoken(secured), DaemonProcess(secured.url, vendor.url("iex")) as daemon:
        assert REASONS[kind] in (await daemon.told("redis_away"))["reason"]
        await unready(daemon, "redis")
        await until(lambda: _attempts(secured, 4))
        assert secured.front.shaken == 0
        assert not vendor.actions
        secured.front.present(secured.good)
        await daemon.until_live()
        await vendor.wait_for(lambda: vendor.symbols == {"AAPL"})
        assert is_quiet(daemon), daemon.log


@pytest.mark.fault("K39")
@pytest.mark.parametrize("kind", REASONS)
async def test_a_certificate_that_goes_bad_and_is_renewed_loses_nothing(
    secured: Secured, own_redis: Redis, vendor: AlpacaSimulator, kind: str
) -> None:
    """Every part of the daemon refuses it, says why, and is back on its own soon after the renewal."""
    traffic = Traffic(vendor, "AAPL")
    async with only_tls_was_spoken(secured), DaemonProcess(secured.url, vendor.url("iex")) as daemon:
        await daemon.until_live()
        await subscribed(own_redis, vendor, "AAPL")
        await until(lambda: _all_parts_are_there(own_redis))
        async with traffic.flowing(200):
            await daemon.until(lambda status: status["stored"] > 100)
            secured.front.present(secured.bad[kind])
            secured.front.cut()
            await unready(daemon, REASONS[kind])
            shaken, attempts = secured.front.shaken, len(secured.heads)
            await until(lambda: _attempts(secured, attempts + 4))
            assert secured.front.shaken == shaken
            assert not await _parts(own_redis)
            secured.front.present(secured.good)
            renewed_s = time.monotonic()
            await daemon.until(lambda status: status["state"] == "live" and status["tracking"], 15)
            await until(lambda: _all_parts_are_there(own_redis))
            # Five seconds, three times generous.
            assert time.monotonic() - renewed_s < 15
        await traffic.everything_arrived(daemon, own_redis)
        await subscribed(own_redis, vendor, "AAPL", "MSFT")
        await until(lambda: state_is(own_redis, "MSFT", "live"))
        assert is_quiet(daemon), daemon.log


async def _parts(redis: Redis) -> set[str]:
    return {client["name"] for client in await redis.client_list() if client["name"].startswith("quotebus")}


async def _all_parts_are_there(redis: Redis) -> bool:
    return await _parts(redis) == PARTS


async def _attempts(secured: Secured, at_least: int) -> bool:
    return len(secured.heads) >= at_least
