"""The server changes while the daemon runs: its passwords, its databases, its scripts, its clients, its kind."""

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from ingestor.login import REFUSED_PAUSE_S
from simulator import AccountRules, AlpacaSimulator, SimulatorSettings
from simulator.redis_server import RedisServer
from tests.scenario.conftest import until
from tests.scenario.daemon import DaemonProcess
from tests.scenario.proxy import Proxy
from tests.scenario.streams import KEYS, numbers, subscribed
from tests.scenario.traffic import Traffic, is_quiet, unready
from wire import Keyspace

ROOT = Path(__file__).parents[2]
CONNECTIONS = 4
"""What a daemon may have open to Redis, and so what may be refused before the first refusal is known."""
OUTPUT_LIMIT_BYTES = 1024 * 1024
FLOOD_AND_ADD = """
for _ = 1, ARGV[2] do redis.call('PUBLISH', '__redis__:invalidate', ARGV[1]) end
return redis.call('SADD', KEYS[1], ARGV[3])
"""


@pytest.fixture
async def live(own_redis: Redis, own_daemon: DaemonProcess, vendor: AlpacaSimulator) -> DaemonProcess:
    """The daemon on the server that will change, with AAPL and MSFT live."""
    await subscribed(own_redis, vendor, "AAPL", "MSFT")
    return own_daemon


@pytest.fixture
def traffic(vendor: AlpacaSimulator) -> Traffic:
    """Quotes of both symbols."""
    return Traffic(vendor, "AAPL", "MSFT")


@pytest.fixture(scope="session")
def debian_redis() -> str:
    """The path of Debian's redis-server, another kind of server than the embedded one."""
    found = subprocess.run(
        [ROOT / "scripts/debian_tool.sh", "redis-server", "redis-server"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    if found.returncode:
        pytest.fail(found.stderr.strip())
    return found.stdout.strip()


# --- passwords --------------------------------------------------------------------------------------------------


@pytest.fixture
def url_file(own_server: RedisServer, tmp_path: Path) -> Path:
    """A file with a URL, whose password the server does not know yet."""
    file = tmp_path / "redis_url"
    file.write_text(_url(own_server, "password-1"))
    return file


@pytest.mark.fault("K24")
async def test_a_rotated_password_is_read_from_its_file_and_the_old_one_is_not_hammered(
    own_server: RedisServer, own_redis: Redis, vendor: AlpacaSimulator, traffic: Traffic, url_file: Path
) -> None:
    """While the file is old there is one attempt in 5 s; the new one is tried at once, and nothing is missing."""
    await _set_password(own_redis, "password-1")
    async with DaemonProcess("", vendor.url("iex"), redis_url_file=str(url_file)) as daemon:
        await daemon.until_live()
        await subscribed(own_redis, vendor, "AAPL", "MSFT")
        async with traffic.flowing(200):
            await daemon.until(lambda status: status["stored"] > 0)
            await _set_password(own_redis, "password-2")
            await own_redis.client_kill_filter(_type="normal", user="daemon")
            await own_redis.client_kill_filter(_type="pubsub", user="daemon")
            await unready(daemon, "authentication refused")
            began_s, refused = time.monotonic(), await _refused(own_redis)
            assert refused <= CONNECTIONS
            await until(
                lambda: _stat_is_above(own_redis, "acl_access_denied_auth", refused), 3 * REFUSED_PAUSE_S
            )
            # From the first refusal, which came a little before it was seen.
            assert time.monotonic() - began_s > REFUSED_PAUSE_S - 1.0
            assert await _refused(own_redis) == refused + 1
            _write(url_file, _url(own_server, "password-2"))
            # The refused one would have had to wait for longer.
            await daemon.until(lambda status: status["state"] == "live", REFUSED_PAUSE_S - 1.0)
        await traffic.everything_arrived(daemon, own_redis)
        await daemon.until(lambda status: bool(status["tracking"]))
        assert await _refused(own_redis) == refused + 1
        assert is_quiet(daemon), daemon.log
        assert "password-" not in daemon.log
        assert "password-" not in (await daemon.page("/status"))[1]


@pytest.mark.fault("K24")
@pytest.mark.parametrize("login", ["wrong", "missing"])
async def test_a_login_that_is_refused_at_the_start_is_repeated_with_patience(
    own_server: RedisServer, own_redis: Redis, vendor: AlpacaSimulator, url_file: Path, login: str
) -> None:
    """Not live and not dead; when the server has been told the password, the daemon begins by itself."""
    if login == "missing":
        await own_redis.config_set("requirepass", "password-0")
        _write(url_file, own_server.url)
    async with DaemonProcess("", vendor.url("iex"), redis_url_file=str(url_file)) as daemon:
        await unready(daemon, "redis")
        await daemon.told("redis_away")
        connections = await _stat(own_redis, "total_connections_received")
        ends_s = time.monotonic() + 2.0
        while time.monotonic() < ends_s:
            assert (await daemon.page("/livez"))[0] == 200
            await asyncio.sleep(0.1)
        assert await _stat(own_redis, "total_connections_received") - connections <= 1
        if login == "missing":
            _write(url_file, own_server.url.replace("redis://", "redis://:password-0@"))
        else:
            await _set_password(own_redis, "password-1")
        await daemon.until_live()
        assert is_quiet(daemon), daemon.log


# --- clients ----------------------------------------------------------------------------------------------------


@pytest.mark.fault("K40")
async def test_clients_that_are_killed_come_back_and_nothing_is_missing(
    live: DaemonProcess, own_redis: Redis, traffic: Traffic
) -> None:
    """CLIENT KILL of all connections, ten times in the middle of traffic."""
    async with traffic.flowing():
        for _ in range(10):
            before = (await live.status())["stored"]
            await own_redis.client_kill_filter(_type="normal", skipme=True)
            await own_redis.client_kill_filter(_type="pubsub", skipme=True)
            await live.until(lambda status, before=before: status["stored"] > before)  # type: ignore[misc]
    await traffic.everything_arrived(live, own_redis)
    await live.until(lambda status: bool(status["tracking"]))
    assert is_quiet(live, 80), live.log


@pytest.mark.fault("K40")
async def test_a_server_that_closes_idle_clients_loses_no_first_write(
    live: DaemonProcess, own_redis: Redis, traffic: Traffic
) -> None:
    """With `timeout 1` each quote after a silence is stored all the same."""
    await own_redis.config_set("timeout", 1)
    for _ in range(2):
        await asyncio.sleep(2.5)  # the silence itself
        traffic.send(5)
        await traffic.everything_arrived(live, own_redis)
    assert is_quiet(live), live.log


@pytest.mark.fault("K41")
async def test_a_watch_that_the_server_throws_out_for_its_output_reads_the_set_again(
    live: DaemonProcess,
    own_server: RedisServer,
    own_redis: Redis,
    vendor: AlpacaSimulator,
    traffic: Traffic,
) -> None:
    """The limit of its output buffer ends the watch in the moment of a change, and the change is acted on."""
    await own_redis.config_set("client-output-buffer-limit", f"pubsub {OUTPUT_LIMIT_BYTES} 0 0")
    await live.until(lambda status: bool(status["tracking"]))
    await own_redis.eval(FLOOD_AND_ADD, 1, KEYS.symbols, "x" * 4096, 2 * OUTPUT_LIMIT_BYTES // 4096, "TSLA")
    await until(lambda: _said(own_server, "output buffer limits"))
    await vendor.wait_for(lambda: "TSLA" in vendor.symbols, 6)
    await live.until(lambda status: bool(status["tracking"]))
    await own_redis.sadd(KEYS.symbols, "NVDA")
    await vendor.wait_for(lambda: "NVDA" in vendor.symbols, 6)
    traffic.send(10)
    await traffic.everything_arrived(live, own_redis)


@pytest.mark.fault("K41")
async def test_a_watch_that_is_killed_in_the_moment_of_a_change_reads_the_set_again(
    live: DaemonProcess, own_redis: Redis, vendor: AlpacaSimulator
) -> None:
    """CLIENT KILL of either of its two connections, and an SADD in the same step."""
    for kind, symbol in ("pubsub", "TSLA"), ("normal", "NVDA"):
        clients = await own_redis.client_list(_type=kind)
        pipe = own_redis.pipeline(transaction=True)
        for client in clients:
            if client["name"] == "quotebus-watch":
                pipe.client_kill_filter(_id=client["id"])
        pipe.sadd(KEYS.symbols, symbol)
        assert (await pipe.execute())[0] == 1
        await vendor.wait_for(lambda symbol=symbol: symbol in vendor.symbols, 6)  # type: ignore[misc]
        await live.until(lambda status: bool(status["tracking"]))


# --- content ----------------------------------------------------------------------------------------------------


@pytest.mark.fault("K33")
async def test_a_database_swapped_for_an_empty_one_is_an_emptied_database(
    live: DaemonProcess, own_redis: Redis, vendor: AlpacaSimulator, traffic: Traffic
) -> None:
    """SWAPDB takes everything away at once: the symbols are held, and what comes then is stored once, in order."""
    traffic.send(50)
    await traffic.everything_arrived(live, own_redis)
    await own_redis.swapdb(0, 1)
    await live.until(lambda status: "vanished" in status["held"])
    traffic.send(50)
    await traffic.settled(live)
    assert vendor.symbols == {"AAPL", "MSFT"}
    for symbol in ("AAPL", "MSFT"):
        found = await numbers(own_redis, symbol)
        assert found == list(range(found[0], 101))
        assert found[0] <= 51
    await own_redis.sadd(KEYS.symbols, "AAPL", "MSFT")
    await live.until(lambda status: status["held"] == "" and status["state"] == "live")
    assert is_quiet(live), live.log


@pytest.mark.fault("K34")
async def test_scripts_that_are_flushed_in_the_middle_of_traffic_are_brought_again(
    live: DaemonProcess, own_redis: Redis, traffic: Traffic
) -> None:
    """SCRIPT FLUSH and FUNCTION FLUSH, twenty times: NOSCRIPT costs a repeat, and the server is not away."""
    async with traffic.flowing(2000):
        for n in range(20):
            stored = (await live.status())["stored"]
            await own_redis.script_flush("SYNC" if n % 2 else "ASYNC")
            await own_redis.function_flush()
            await live.until(lambda status, stored=stored: status["stored"] > stored)  # type: ignore[misc]
            assert (await live.page("/readyz"))[0] == 200
    await traffic.everything_arrived(live, own_redis)
    assert 'quotebus_batches_refused_total{error="NOSCRIPT"}' in (await live.page("/metrics"))[1]
    assert "redis_away" not in live.kinds()
    assert is_quiet(live), live.log


# --- kind -------------------------------------------------------------------------------------------------------


@pytest.mark.fault("K44")
async def test_an_upgrade_behind_the_same_address_loses_nothing_and_is_asked_anew_what_it_can(
    debian_redis: str, vendor: AlpacaSimulator, traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a Redis 7 that refuses tracking to a Valkey that took over its data: the daemon tracks at once."""
    with contextlib.ExitStack() as servers:
        new = servers.enter_context(RedisServer(options=("--repl-diskless-sync-delay", "0")))
        monkeypatch.setenv("QUOTEBUS_REDIS_SERVER", debian_redis)
        old = servers.enter_context(RedisServer(options=("--repl-diskless-sync-delay", "0")))
        async with (
            Redis.from_url(old.url, decode_responses=True, protocol=2) as old_redis,
            Redis.from_url(new.url, decode_responses=True, protocol=2) as new_redis,
            Proxy(old.port) as proxy,
        ):
            await old_redis.acl_setuser("default", enabled=True, commands=["-client|tracking"])
            async with DaemonProcess(proxy.url, vendor.url("iex")) as daemon:
                await daemon.until_live()
                await subscribed(old_redis, vendor, "AAPL", "MSFT")
                assert (await daemon.status())["tracking"] is False
                await new_redis.replicaof("127.0.0.1", str(old.port))
                await until(lambda: _is_in_sync(new_redis))
                traffic.send(100)
                await traffic.settled(daemon)
                await until(lambda: _has_all_of(new_redis, old_redis))
                proxy.cut()
                proxy.target = new.port
                async with traffic.flowing():
                    await new_redis.replicaof("NO", "ONE")
                    await daemon.until(lambda status: bool(status["tracking"]))
                    await subscribed(new_redis, vendor, "AAPL", "MSFT", "TSLA")
                await traffic.everything_arrived(daemon, new_redis)


@pytest.mark.fault("K44")
async def test_a_downgrade_on_the_same_port_is_asked_anew_what_it_can(
    own_server: RedisServer,
    live: DaemonProcess,
    vendor: AlpacaSimulator,
    traffic: Traffic,
    debian_redis: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From Valkey to an empty Redis 7 that refuses tracking: scripts are brought anew, changes found by looking."""
    traffic.send(50)
    await traffic.settled(live)
    own_server.stop()
    with RedisServer(own_server.port, options=_binary(monkeypatch, debian_redis)):
        async with Redis.from_url(own_server.url, decode_responses=True, protocol=2) as redis:
            assert (await redis.info("server"))["redis_version"].startswith("7.0")
            await redis.acl_setuser("default", enabled=True, commands=["-client|tracking"])
            await redis.client_kill_filter(_type="pubsub")
            await redis.client_kill_filter(_type="normal", skipme=True)
            await live.until(lambda status: status["state"] == "live" and not status["tracking"])
            traffic.send(50)
            await traffic.settled(live)
            for symbol in ("AAPL", "MSFT"):
                found = await numbers(redis, symbol)
                assert found == list(range(found[0], 101))
                assert found[0] <= 51
            await subscribed(redis, vendor, "AAPL", "MSFT", "TSLA")
            assert is_quiet(live), live.log


# --- neighbours -------------------------------------------------------------------------------------------------


@pytest.fixture
async def other_vendor() -> AsyncIterator[AlpacaSimulator]:
    """Another account, for another daemon."""
    async with AlpacaSimulator(SimulatorSettings(account=AccountRules(connection_limit=1))) as simulator:
        yield simulator


@pytest.mark.fault("K46")
async def test_of_two_daemons_on_one_server_the_failing_one_harms_only_itself(
    own_server: RedisServer, own_redis: Redis, vendor: AlpacaSimulator, other_vendor: AlpacaSimulator
) -> None:
    """Two namespaces, and one loses its right to its keys: the other is ready all along, and both end complete."""
    good_keys, bad_keys = Keyspace("good"), Keyspace("bad")
    await own_redis.acl_setuser(
        "bad", enabled=True, passwords=["+pw"], keys=["bad:*"], channels=["*"], commands=["+@all"]
    )
    bad_url = own_server.url.replace("redis://", "redis://bad:pw@")
    await own_redis.sadd(good_keys.symbols, "AAPL")
    await own_redis.sadd(bad_keys.symbols, "AAPL")
    async with (
        DaemonProcess(own_server.url, vendor.url("iex"), namespace="good") as good,
        DaemonProcess(bad_url, other_vendor.url("iex"), namespace="bad") as bad,
    ):
        good_traffic = Traffic(vendor, "AAPL", keys=good_keys)
        bad_traffic = Traffic(other_vendor, "AAPL", keys=bad_keys)
        await good.until(lambda status: status["live"] == 1, 15)
        await bad.until(lambda status: status["live"] == 1, 15)
        async with good_traffic.flowing(), bad_traffic.flowing():
            await bad.until(lambda status: status["stored"] > 0)
            await own_redis.acl_setuser("bad", enabled=True, reset_keys=True)
            await unready(bad, "NOPERM")
            before = (await good.status())["stored"]
            await good.until(lambda status: status["stored"] > before + 500)
            assert (await good.page("/readyz"))[0] == 200
            await own_redis.acl_setuser("bad", enabled=True, keys=["bad:*"])
            await bad.until(lambda status: status["state"] == "live")
        await good_traffic.everything_arrived(good, own_redis)
        await bad_traffic.everything_arrived(bad, own_redis)
        assert "redis_away" not in good.kinds()
        assert is_quiet(good), good.log
        assert is_quiet(bad), bad.log


def _url(server: RedisServer, password: str) -> str:
    return server.url.replace("redis://", f"redis://daemon:{password}@")


def _write(file: Path, url: str) -> None:
    """In one step, as whoever rotates a secret ought to."""
    new = file.with_suffix(".new")
    new.write_text(url)
    new.rename(file)


def _binary(monkeypatch: pytest.MonkeyPatch, path: str) -> tuple[str, ...]:
    monkeypatch.setitem(os.environ, "QUOTEBUS_REDIS_SERVER", path)
    return ()


async def _set_password(redis: Redis, password: str) -> None:
    await redis.acl_setuser(
        "daemon",
        enabled=True,
        reset_passwords=True,
        passwords=[f"+{password}"],
        keys=["*"],
        channels=["*"],
        commands=["+@all"],
    )


async def _refused(redis: Redis) -> int:
    """How many logins the server has refused."""
    return await _stat(redis, "acl_access_denied_auth")


async def _stat(redis: Redis, name: str) -> int:
    return int((await redis.info("stats"))[name])


async def _stat_is_above(redis: Redis, name: str, bound: int) -> bool:
    return await _stat(redis, name) > bound


async def _said(server: RedisServer, words: str) -> bool:
    return words in server.log


async def _is_in_sync(redis: Redis) -> bool:
    return bool((await redis.info("replication"))["master_link_status"] == "up")


async def _has_all_of(replica: Redis, master: Redis) -> bool:
    streams = [KEYS.stream(symbol) for symbol in ("AAPL", "MSFT")]
    return [await replica.xlen(s) for s in streams] == [await master.xlen(s) for s in streams]
