"""The Redis users: each role does its work with the real program, and nothing beyond it."""

import asyncio
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError

from consumers import BusUnavailable, connect
from consumers.link import Target
from consumers.rest import Budget, RestLimited, share
from consumers.shared_link import SharedLink
from tests.deploy.conftest import DEPLOY, Guarded, environment, eventually, guarded_server, running_daemon
from wire import Keyspace, Quote

CLAIM = resources.files("ingestor.assets").joinpath("claim.lua").read_text()
REMEMBER = resources.files("consumers.groups").joinpath("remember.lua").read_text()
FILES = ("users.acl", "users-6.2.acl")
USERS = ("daemon", "operator", "strategy")
SYSTEM_SERVER = shutil.which("redis-server")
SERVERS = ("embedded", *(["system"] if SYSTEM_SERVER else []))

DANGEROUS = (
    ("FLUSHALL",),
    ("FLUSHDB",),
    ("CONFIG", "GET", "*"),
    ("CONFIG", "SET", "maxmemory", "1"),
    ("KEYS", "*"),
    ("SCAN", "0"),
    ("SHUTDOWN", "NOSAVE"),
    ("SLOWLOG", "RESET"),
    ("ACL", "LIST"),
    ("ACL", "SETUSER", "eve", "on", "nopass", "+@all", "~*"),
    ("REPLICAOF", "127.0.0.1", "1"),
    ("CLIENT", "LIST"),
    ("CLIENT", "KILL", "ID", "1"),
    ("CLIENT", "PAUSE", "1"),
    ("MONITOR",),
    ("SAVE",),
    ("RENAME", "quotes:latest", "quotes:elsewhere"),
    ("SET", "quotes:latest", "x"),
    ("UNLINK", "quotes:latest"),
    ("SCRIPT", "FLUSH"),
    ("GET", "somebody:else"),
    ("HSET", "somebody:else", "a", "b"),
    ("PUBLISH", "__redis__:invalidate", "x"),
)
"""What no role may do."""
NEVER = {
    "operator": (
        ("XADD", "quotes:stream:AAPL", "*", "q", "[]"),
        ("DEL", "quotes:stream:AAPL"),
        ("XTRIM", "quotes:stream:AAPL", "MAXLEN", "0"),
        ("HSET", "quotes:latest", "AAPL", "{}"),
        ("HDEL", "quotes:latest", "AAPL"),
        ("HSET", "quotes:writer", "epoch", "99"),
        ("DEL", "quotes:symbols"),
        ("EVAL", "return redis.call('DEL', KEYS[1])", "1", "quotes:latest"),
        ("CLIENT", "TRACKING", "ON"),
    ),
    "strategy": (
        ("XADD", "quotes:stream:AAPL", "*", "q", "[]"),
        ("XDEL", "quotes:stream:AAPL", "1-1"),
        ("DEL", "quotes:stream:AAPL"),
        ("XTRIM", "quotes:stream:AAPL", "MAXLEN", "0"),
        ("XGROUP", "DESTROY", "quotes:stream:AAPL", "g"),
        ("SADD", "quotes:symbols", "EVIL"),
        ("SMEMBERS", "quotes:symbols"),
        ("HSET", "quotes:latest", "AAPL", "{}"),
        ("HDEL", "quotes:latest", "AAPL"),
        ("HSET", "quotes:status", "state", "live"),
        ("HGETALL", "quotes:writer"),
        ("EVAL", "return redis.call('DEL', KEYS[1])", "1", "quotes:rest"),
        ("EVAL", "return redis.call('XADD', KEYS[1], '*', 'q', '[]')", "1", "quotes:stream:AAPL"),
        ("XTRIM", "quotes:stream:AAPL", "MAXLEN", "0"),
        ("XSETID", "quotes:stream:AAPL", "9-9"),
        ("SET", "quotes:groups:g:AAPL", "x"),
        ("DEL", "quotes:groups:g:AAPL"),
        ("EVAL", "return redis.call('DEL', KEYS[1])", "1", "quotes:groups:g:AAPL"),
        ("XGROUP", "DESTROY", "quotes:stream:AAPL", "workers"),
        ("HDEL", "quotes:assets:0123", "AAPL"),
    ),
    "daemon": (
        ("SADD", "quotes:symbols", "EVIL"),
        ("SREM", "quotes:symbols", "AAPL"),
        ("ZADD", "quotes:interest", "1", "EVIL@me"),
        ("HGETALL", "quotes:rest"),
    ),
}
ONLY_SINCE_7 = {
    "strategy": (
        ("ZADD", "quotes:stream:NEW", "1", "a"),
        ("PEXPIREAT", "quotes:stream:AAPL", "1"),
        ("HSET", "quotes:subscriptions", "AAPL", "{}"),
        ("PEXPIREAT", "quotes:interest", "1"),
        ("PEXPIREAT", "quotes:rest", "1"),
        ("HSET", "quotes:interest", "AAPL@me", "1"),
        ("HSET", "quotes:rest:calls:0123", "AAPL", "1"),
        ("ZADD", "quotes:rest", "1", "AAPL"),
        ("EVAL", "return redis.call('ZADD', KEYS[1], 1, 'AAPL@me')", "1", "quotes:interest"),
        ("EVAL", "return redis.call('PEXPIREAT', KEYS[1], 1)", "1", "quotes:rest"),
        ("EVAL", "return redis.call('HSET', KEYS[1], 'a', '1')", "1", "quotes:groups:g:AAPL"),
    ),
    "daemon": (("DEL", "quotes:symbols"), ("EXPIRE", "quotes:interest", "1")),
    "operator": (("SADD", "quotes:elsewhere", "x"),),
}
"""What takes rights per key and direction, which the syntax of Redis 6.2 has not."""
CANNOT_BE_SAID: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "strategy": (
        ("a stream that is not there", ("XGROUP", "CREATE", "quotes:stream:NEW", "g", "0", "MKSTREAM")),
        ("the leases of all others", ("ZREMRANGEBYSCORE", "quotes:interest", "-inf", "+inf")),
    ),
}
"""What rights have no words for: an option of a command, and which members of a key. The README says so."""
CANNOT_BE_SAID_IN_6_2: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "daemon": (
        ("might delete `symbols`", ("DEL", "quotes:symbols")),
        ("or let all leases expire", ("EXPIRE", "quotes:interest", "1")),
    ),
    "operator": (
        ("a set where the stream of a symbol would be", ("SADD", "quotes:stream:NEVER", "x")),
        ("in the place of another key of the namespace that is not there", ("SADD", "quotes:latest", "x")),
    ),
    "strategy": (
        (
            "may `ZADD` on a key that it sees and that does not exist yet",
            ("ZADD", "quotes:stream:NONE", "1", "x"),
        ),
        ("let any key that it sees expire", ("PEXPIREAT", "quotes:stream:NEVER", "1")),
    ),
}
ALLOWED = {
    "daemon": (
        ("EVAL", CLAIM, "1", "quotes:assets:0123", "desk:1", "90"),
        ("HSET", "quotes:assets:0123", "AAPL", "active tradable NASDAQ"),
        ("EXPIRE", "quotes:assets:0123", "90"),
        ("HGET", "quotes:assets:0123", "asked"),
        ("TTL", "quotes:assets:0123"),
        ("HKEYS", "quotes:assets:0123"),
        ("HMGET", "quotes:assets:0123", "AAPL"),
        ("DEL", "quotes:assets:0123"),
    ),
    "operator": (
        ("HGETALL", "quotes:assets:0123"),
        ("SADD", "quotes:symbols", "AAPL"),
        ("SREM", "quotes:symbols", "AAPL"),
        ("SMEMBERS", "quotes:symbols"),
        ("HGETALL", "quotes:status"),
        ("HGETALL", "quotes:rest"),
        ("HGETALL", "quotes:writer"),
        ("ZRANGE", "quotes:interest", "0", "-1", "WITHSCORES"),
        ("XREVRANGE", "quotes:events", "+", "-", "COUNT", "50"),
        ("TYPE", "quotes:latest"),
        ("INFO", "memory"),
    ),
    "strategy": (
        ("ZADD", "quotes:interest", "1", "AAPL@me"),
        ("ZREM", "quotes:interest", "AAPL@me"),
        ("ZREMRANGEBYSCORE", "quotes:interest", "-inf", "1"),
        ("HGETALL", "quotes:status"),
        ("HGET", "quotes:subscriptions", "AAPL"),
        ("HMGET", "quotes:rest", "AAPL"),
        ("XREAD", "COUNT", "1", "STREAMS", "quotes:stream:AAPL", "0"),
        ("XRANGE", "quotes:events", "-", "+"),
        ("XGROUP", "CREATE", "quotes:stream:AAPL", "g", "0", "MKSTREAM"),
        ("XREADGROUP", "GROUP", "g", "me", "STREAMS", "quotes:stream:AAPL", ">"),
        ("XPENDING", "quotes:stream:AAPL", "g"),
        ("XAUTOCLAIM", "quotes:stream:AAPL", "g", "me", "0", "-", "JUSTID"),
        ("XGROUP", "CREATECONSUMER", "quotes:stream:AAPL", "g", "generation:1"),
        ("XCLAIM", "quotes:stream:AAPL", "g", "me", "0", "1-1"),
        ("EVAL", REMEMBER, "1", "quotes:groups:g:AAPL", "", "{}", "60"),
        ("ZRANGE", "quotes:groups:g:AAPL", "0", "0"),
        ("XACK", "quotes:stream:AAPL", "g", "1-1"),
        ("XINFO", "CONSUMERS", "quotes:stream:AAPL", "g"),
        ("XGROUP", "DELCONSUMER", "quotes:stream:AAPL", "g", "me"),
    ),
}


@pytest.fixture(params=SERVERS)
def any_server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The kind of server: the embedded one, and the machine's own where there is one."""
    if request.param == "system" and SYSTEM_SERVER:
        monkeypatch.setenv("QUOTEBUS_REDIS_SERVER", SYSTEM_SERVER)
    return str(request.param)


@pytest.fixture(params=FILES)
def guarded(any_server: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Guarded]:
    """Each server with each file."""
    with guarded_server(tmp_path, (DEPLOY / "acl" / request.param).read_text()) as server:
        yield server


async def quotebus(*arguments: str) -> tuple[int, str]:
    """Run the command line; its exit code, and all that it said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from ingestor.cli import main; main()"),
        *arguments,
        cwd=DEPLOY.parent,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    async with asyncio.timeout(30):
        output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


@pytest.mark.fault("K54")
async def test_each_role_does_its_work_and_is_refused_nothing(guarded: Guarded, tmp_path: Path) -> None:
    """Daemon, strategy and operator work together, and the server's log of denials stays empty."""
    async with (
        running_daemon(guarded, tmp_path, "AAPL", "MSFT") as running,
        guarded.client("operator") as operator,
    ):
        async with connect(guarded.url("strategy")) as bus:
            newest = await bus.latest("AAPL")
            assert newest is not None
            assert (await bus.quality("AAPL"))["AAPL"].reason != "no daemon has written here"
            stream = bus.quotes("AAPL", "MSFT", start="snapshot")
            seen = {item.symbol async for item, _ in _some(stream, 20)}
            assert seen == {"AAPL", "MSFT"}
            await stream.aclose()
            assert [item async for item in bus.history("AAPL", newest.time_ns)]
            async with bus.group("g", "AAPL", "MSFT", start="earliest") as group:
                async for delivery in group:
                    await group.ack(delivery)
                    if (await group.lag())["AAPL"].members:
                        break
            # A lease that the daemon hears of, kept over a beat and given back.
            async with bus.interest("NVDA") as interest:
                assert interest.trouble is None
                await eventually(lambda: _is_subscribed(operator, "NVDA"), running.log)
                first = await _expiry(operator, "NVDA")
                await eventually(lambda: _expires_after(operator, "NVDA", first), running.log)
                interest.add("GME")
                await eventually(lambda: _is_subscribed(operator, "GME"), running.log)
                code, said = await quotebus("symbols", "ls", "--redis-url", guarded.url("operator"))
                assert code == 0, said
                assert f"only leased, by {bus.name} (" in said
            worker = bus.group("workers", "AAPL", start="earliest")
            async for delivery, _ in _some(worker, 20):
                await worker.ack(delivery)
            await worker.aclose()
        assert await operator.zcard("quotes:interest") == 0

        url = ("--redis-url", guarded.url("operator"))
        code, said = await quotebus("tail", "AAPL", "--count", "2", *url)
        assert code == 0, said
        assert all(line.split()[1] == "AAPL" for line in said.splitlines()), said
        code, said = await quotebus("symbols", "add", "TSLA", *url)
        assert (code, said) == (0, "added 1\n")
        code, said = await quotebus("symbols", "rm", "MSFT", *url)
        assert (code, said) == (0, "removed 1\n")

        async def unwanted_forgotten() -> bool:
            # MSFT's stream has expired and its cache field is gone, TSLA is subscribed: the daemon has used
            # every command it has.
            states = await operator.hkeys("quotes:subscriptions")
            return "TSLA" in states and not await operator.hexists("quotes:latest", "MSFT")

        await eventually(unwanted_forgotten, running.log)
        code, said = await quotebus("status", *url)
        assert code == 0, said
        code, said = await quotebus("symbols", "ls", *url)
        assert code == 0, said
        assert "AAPL" in said

    assert running.process.returncode == 0, running.log.read_text()
    log = running.log.read_text()
    assert "NOPERM" not in log, log
    assert "not_allowed" not in log, log
    assert "stream_forgotten" in log
    assert await guarded.denials() == []


async def test_the_daemon_hears_of_changes_at_once(guarded: Guarded, tmp_path: Path) -> None:
    """Tracking of keys is allowed, so the daemon does not fall back to looking now and then."""
    async with running_daemon(guarded, tmp_path, "AAPL") as running:

        async def is_tracking() -> bool:
            return b'"tracking":true' in await asyncio.to_thread(_fetch, f"{running.http}/status")

        await eventually(is_tracking, running.log)


@pytest.mark.parametrize("user", USERS)
async def test_no_role_has_a_dangerous_command(guarded: Guarded, user: str) -> None:
    """Emptying, reconfiguring, listing and scripting around is refused to every role."""
    async with guarded.client(user) as client:
        for command in (*DANGEROUS, *NEVER[user]):
            await _assert_refused(client, command)


@pytest.mark.parametrize("user", ["operator", "strategy"])
async def test_a_role_has_what_it_needs(guarded: Guarded, user: str) -> None:
    """The commands that people and programs of this role type are answered."""
    async with guarded.client(user) as client:
        for command in ALLOWED[user]:
            await _run(client, command)


@pytest.mark.fault("K54")
@pytest.mark.usefixtures("any_server")
@pytest.mark.parametrize("name", FILES)
async def test_what_rights_cannot_say_is_written_down(name: str, tmp_path: Path) -> None:
    """Each thing that a role may do and should not is possible, alas, and stands in the README."""
    told = " ".join((DEPLOY / "acl/README.md").read_text().split())
    assert "`acl/users-6.2.acl`" in (DEPLOY / "README.md").read_text()
    with guarded_server(tmp_path, (DEPLOY / "acl" / name).read_text()) as guarded:
        for user in USERS:
            async with guarded.client(user) as client:
                for words, command in CANNOT_BE_SAID.get(user, ()):
                    await _run(client, command)
                    assert words in told
                for words, command in CANNOT_BE_SAID_IN_6_2[user]:
                    assert words in told
                    if name == "users.acl":
                        await _assert_refused(client, command)
                    else:
                        await _run(client, command)


@pytest.mark.fault("K54")
@pytest.mark.usefixtures("any_server")
async def test_rights_are_per_key_where_the_server_can(tmp_path: Path) -> None:
    """The file for Redis 7 tells reading from writing, and lets a strategy share what REST brought."""
    with guarded_server(tmp_path, (DEPLOY / "acl/users.acl").read_text()) as guarded:
        for user, commands in ONLY_SINCE_7.items():
            async with guarded.client(user) as client:
                for command in commands:
                    await _assert_refused(client, command)
        async with guarded.client("strategy") as strategy:
            await _run(strategy, ("HSET", "quotes:rest", "AAPL", "{}"))
            calls = "redis.call('ZADD', KEYS[1], 1, 'a') return redis.call('PEXPIREAT', KEYS[1], ARGV[1])"
            await _run(strategy, ("EVAL", calls, "1", "quotes:rest:calls:0123456789abcdef", str(9 * 10**12)))


@pytest.mark.usefixtures("any_server")
@pytest.mark.parametrize("name", FILES)
async def test_a_strategy_counts_its_rest_calls_and_shares_what_they_bring(name: str, tmp_path: Path) -> None:
    """Both scripts run with the strategy's rights; where the syntax is 6.2's, sharing alone is refused."""
    with guarded_server(tmp_path, (DEPLOY / "acl" / name).read_text()) as guarded:
        await _count_and_share(guarded, may_share=name == "users.acl")


async def _count_and_share(guarded: Guarded, *, may_share: bool) -> None:
    keys, now_ns = Keyspace(), time.time_ns()
    quote = Quote("AAPL", None, 1.0, 1, "V", 2.0, 1, "V", None, None, now_ns, 0)
    link = SharedLink(Target(guarded.url("strategy"), timeout_s=10))
    link.open()
    try:
        budget = Budget(link, keys, "PKTEST", 2)
        call = await budget.take(5, 1)
        await budget.settle(call)
        await budget.take(5, 1)
        with pytest.raises(RestLimited):
            await budget.take(1, 1)
        await budget.stop(1)
        assert budget.is_shared
        if may_share:
            assert await guarded.denials() == []
            assert (await share(link, keys, [quote])).stored == 1
        else:
            with pytest.raises(BusUnavailable):
                await share(link, keys, [quote])
    finally:
        await link.close()


async def test_nobody_gets_in_without_a_name(guarded: Guarded) -> None:
    """The default user is off."""
    async with Redis.from_url(guarded.server.url, protocol=2) as client:
        with pytest.raises(AuthenticationError):
            await _run(client, ("PING",))


@pytest.mark.parametrize("name", FILES)
def test_the_file_has_exactly_the_roles_with_placeholders(name: str) -> None:
    """Each user is on, has the placeholder that the instructions replace, and names each command by itself."""
    lines = [line.split() for line in (DEPLOY / "acl" / name).read_text().splitlines()]
    assert lines[0] == ["user", "default", "off"]
    assert [line[1] for line in lines[1:]] == list(USERS)
    for _, user, state, password, *rules in lines[1:]:
        assert (state, password) == ("on", f">CHANGE-ME-{user}")
        assert "resetchannels" in rules
        assert not [
            rule for rule in rules if "@" in rule or rule in ("allcommands", "allkeys", "nopass", "~*")
        ]


def test_the_file_for_6_2_uses_no_later_syntax() -> None:
    """No rights per direction, no selectors, no subcommand taken away: those came with Redis 7."""
    text = (DEPLOY / "acl/users-6.2.acl").read_text()
    assert not re.search(r"%|\(|&\*|-\w+\|", text)
    plain = (DEPLOY / "acl/users.acl").read_text().replace("%R~", "~")
    assert _commands(text, "daemon") == _commands(plain, "daemon")
    assert _commands(text, "operator") == _commands(plain, "operator")
    assert _commands(plain, "strategy") >= _commands(text, "strategy")
    assert _commands(plain, "strategy") - _commands(text, "strategy") == {"+hset", "+hdel"}


def _commands(acl: str, user: str) -> set[str]:
    (line,) = [line for line in acl.splitlines() if line.startswith(f"user {user} ")]
    return {word.strip("()") for word in line.split() if word.startswith("+")}


def _fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return bytes(answer.read())


async def _is_subscribed(operator: Redis, symbol: str) -> bool:
    return '"live"' in (await operator.hget("quotes:subscriptions", symbol) or "")


async def _expiry(operator: Redis, symbol: str) -> float:
    rows: Any = await operator.zrange("quotes:interest", 0, -1, withscores=True)
    return max((score for member, score in rows if member.startswith(f"{symbol}@")), default=0.0)


async def _expires_after(operator: Redis, symbol: str, expiry_ms: float) -> bool:
    return await _expiry(operator, symbol) > expiry_ms


async def _some(stream: Any, count: int) -> Any:
    async with asyncio.timeout(20):
        seen = 0
        async for item in stream:
            seen += 1
            yield item, seen
            if seen >= count:
                return


async def _run(client: Redis, command: tuple[str, ...]) -> Any:
    return await client.execute_command(*command)  # type: ignore[no-untyped-call]


async def _assert_refused(client: Redis, command: tuple[str, ...]) -> None:
    try:
        answer = await _run(client, command)
    except NoPermissionError:
        return
    except ResponseError as error:
        # So says a script that was stopped at a command its user may not run.
        if command[0] == "EVAL" and ("ACL" in str(error) or "can't run this command" in str(error)):
            return
        raise
    pytest.fail(f"{' '.join(command)} was answered: {answer!r}")
