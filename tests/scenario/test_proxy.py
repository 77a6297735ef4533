"""The bendable wire bends as it says; a fault that is not injected would prove nothing."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as Lost

from simulator.redis_server import RedisServer
from tests.scenario.conftest import until
from tests.scenario.proxy import Fault, Proxy, Way, named

KEY = "proxied"


@pytest.fixture
async def proxy(shared_server: RedisServer) -> AsyncIterator[Proxy]:
    """A wire to the shared server."""
    async with Proxy(shared_server.port) as running:
        yield running


@pytest.fixture
async def far(proxy: Proxy, redis: Redis) -> AsyncIterator[Redis]:
    """A client behind the wire, connected, that tries nothing twice."""
    async with client(proxy, "far") as connected:
        await connected.ping()
        yield connected


def client(proxy: Proxy, name: str) -> Redis:
    """A client behind the wire with this name."""
    return Redis.from_url(proxy.url, protocol=2, client_name=name, retry=Retry(NoBackoff(), 0))


async def test_a_delay_is_paid_once_for_pieces_that_travel_together(proxy: Proxy, far: Redis) -> None:
    """Fifty replies at once take one delay, in order; one after another each takes its own."""
    proxy.bend(Fault(replies=Way(delay_s=0.2)))
    began_s = asyncio.get_running_loop().time()
    pipe = far.pipeline(transaction=False)
    for n in range(50):
        pipe.echo(str(n))
    assert await pipe.execute() == [str(n).encode() for n in range(50)]
    took_s = asyncio.get_running_loop().time() - began_s
    assert 0.2 <= took_s < 2.0


async def test_a_throttled_wire_carries_so_many_bytes_a_second(proxy: Proxy, far: Redis) -> None:
    """Fifty thousand bytes at a hundred thousand a second take half a second."""
    proxy.bend(Fault(commands=Way(bytes_per_s=100_000)))
    began_s = asyncio.get_running_loop().time()
    await far.set(KEY, "x" * 50_000)
    assert 0.45 <= asyncio.get_running_loop().time() - began_s < 2.0


async def test_a_cut_within_a_command_leaves_it_undone(proxy: Proxy, far: Redis, redis: Redis) -> None:
    """The server got a thousand bytes of it, which is no command."""
    proxy.bend(Fault(commands=Way(cut_after_bytes=1000)))
    with pytest.raises(Lost):
        await far.set(KEY, "x" * 5000)
    assert proxy.resets == 1
    assert await redis.exists(KEY) == 0


async def test_a_cut_within_a_reply_comes_after_the_deed(proxy: Proxy, far: Redis, redis: Redis) -> None:
    """Four bytes of the answer arrive, and the counter has moved."""
    proxy.bend(Fault(replies=Way(cut_after_bytes=2)))
    with pytest.raises(Lost):
        await far.incr(KEY)
    assert await redis.get(KEY) == "1"


async def test_random_resets_come_as_the_seed_has_it(shared_server: RedisServer, redis: Redis) -> None:
    """With the same seed the same reply is lost, whenever it is tried."""
    lost_at = []
    for _ in range(2):
        async with Proxy(shared_server.port, seed=7) as proxy, client(proxy, "far") as far:
            await far.ping()
            proxy.bend(Fault(replies=Way(reset_chance=0.1)))
            for n in range(200):
                try:
                    await far.ping()
                except Lost:
                    lost_at.append(n)
                    break
    assert len(lost_at) == 2
    assert lost_at[0] == lost_at[1]


async def test_a_black_hole_keeps_everything_until_it_is_over(proxy: Proxy, far: Redis, redis: Redis) -> None:
    """New connections are accepted too; then all that was sent arrives."""
    proxy.bend(Fault(black_hole=True))
    async with client(proxy, "late") as late, asyncio.TaskGroup() as group:
        calls = [group.create_task(_incremented(far)), group.create_task(_incremented(late))]
        await until(lambda: _is(proxy.accepted == 2))
        done, _ = await asyncio.wait(calls, timeout=0.2)
        assert not done
        assert await redis.exists(KEY) == 0
        proxy.straighten()
    assert await redis.get(KEY) == "2"


async def test_a_cut_ends_connections_that_fell_into_the_black_hole(proxy: Proxy, far: Redis) -> None:
    """Otherwise no test could end."""
    proxy.bend(Fault(black_hole=True))
    async with asyncio.TaskGroup() as group:
        group.create_task(_lost(far))
        await asyncio.sleep(0)
        proxy.cut()


async def test_a_refused_connection_is_reset_and_an_open_one_is_not(proxy: Proxy, far: Redis) -> None:
    """Refusal is for who comes, not for who is there."""
    proxy.bend(Fault(refuse=True))
    async with client(proxy, "late") as late:
        with pytest.raises(Lost):
            await late.ping()
    assert await far.ping()


async def test_an_idle_connection_is_closed_and_a_busy_one_is_not(proxy: Proxy, far: Redis) -> None:
    """Six calls in three times the limit keep it; silence ends it."""
    proxy.bend(Fault(idle_close_s=0.5))
    for _ in range(6):
        await far.ping()
        await asyncio.sleep(0.25)
    assert proxy.accepted == 1
    await until(lambda: _is(not proxy.passages))


async def test_only_the_chosen_connection_is_hurt(proxy: Proxy, far: Redis) -> None:
    """Chosen by the name it gave itself; the other one notices nothing."""
    async with client(proxy, "victim") as victim:
        await victim.ping()
        proxy.bend(Fault(replies=Way(reset_chance=1.0)), named("victim"))
        assert await far.ping()
        with pytest.raises(Lost):
            await victim.ping()
        assert proxy.resets == 1


async def test_a_new_target_is_where_new_connections_go(proxy: Proxy, far: Redis, redis: Redis) -> None:
    """Same address, another server, as after a failover."""
    await redis.set(KEY, "old")
    with RedisServer() as other:
        proxy.target = other.port
        assert await far.get(KEY) == b"old"
        proxy.cut()
        async with client(proxy, "again") as again:
            assert await again.get(KEY) is None


async def _is(condition: bool) -> bool:
    return condition


async def _incremented(far: Redis) -> int:
    return int(await far.incr(KEY))


async def _lost(far: Redis) -> None:
    with pytest.raises(Lost):
        await far.ping()
