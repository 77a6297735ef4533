"""What a daemon asks of a server before it writes: all that is missing in one sentence, and nothing is changed."""

import asyncio
import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis, ResponseError
from redis.exceptions import RedisError

from ingestor.journal import Journal
from ingestor.redis_link import RedisAddress
from ingestor.rights import NO_SYMBOL, CommandsDisabled, NotPermitted, Unsuitable, examine, needed
from simulator.redis_server import RedisServer, free_port
from tests.ingestor.answering import SWALLOWED, Answering
from tests.ingestor.waiting import until
from tests.ingestor.writer import KEYS
from tests.scenario.sentinels import sentinel
from wire import BadSymbol, Keyspace, parse_symbol

ACL_FILES = Path(__file__).parents[2] / "deploy" / "acl"


@pytest.fixture
def guarded(redis: Redis) -> Iterator[Redis]:
    """A server whose users are made by the test."""
    yield redis
    redis.acl_deluser("daemon")


def grant(redis: Redis, *rules: str) -> None:
    """A user with these rights and no others."""
    redis.execute_command("ACL", "SETUSER", "daemon", "reset", "on", ">secret", *rules)  # type: ignore[no-untyped-call]


async def ask(server: RedisServer, keys: Keyspace = KEYS, user: str = "daemon:secret@") -> list[Any]:
    """The examination by that user, and the notes that it left."""
    journal = Journal()
    async with asyncio.timeout(30):
        url = server.url.replace("redis://", f"redis://{user}")
        await examine(RedisAddress(url), keys, journal, asyncio.Event())
    return list(journal.queue)


def everything(redis: Redis) -> Any:
    """All keys."""
    return redis.execute_command("KEYS", "*")  # type: ignore[no-untyped-call]


async def test_a_user_with_all_rights_passes_and_nothing_is_written(
    guarded: Redis, server: RedisServer
) -> None:
    """Not a key is there afterwards, nor a script; and nothing is told."""
    grant(guarded, "+@all", "~*")
    assert await ask(server) == []
    assert everything(guarded) == []
    assert await ask(server, user="") == []


@pytest.mark.parametrize("name", ["users.acl", "users-6.2.acl"])
async def test_the_users_that_we_ship_pass(guarded: Redis, server: RedisServer, name: str) -> None:
    """By the rules of both files; a server of 6.2 cannot read the newer one's, which is why there are two."""
    lines = (ACL_FILES / name).read_text().replace("\\\n", " ").splitlines()
    (rules,) = [line.split()[2:] for line in lines if line.startswith("user daemon ")]
    rights = [rule for rule in rules if rule[0] in "+-~%&" or rule == "resetchannels"]
    info: Any = guarded.info("server")
    if name == "users.acl" and int(str(info["redis_version"]).split(".")[0]) < 7:
        with pytest.raises(ResponseError):
            grant(guarded, *rights)
        return
    grant(guarded, *rights)
    assert await ask(server) == []


@pytest.mark.fault("K25")
async def test_all_missing_commands_are_listed_at_once(guarded: Redis, server: RedisServer) -> None:
    """With their keys, in one error that says what to do; and nothing was written on the way."""
    grant(guarded, "+@all", "-xadd", "-hset", "-eval", "-zrangebyscore", "~*")
    with pytest.raises(NotPermitted) as refusal:
        await ask(server)
    said = str(refusal.value)
    listed = re.fullmatch(r"the Redis user of 'quotes' may not: (.*?)\. Give it these rights .*", said)
    assert listed is not None, said
    assert listed[1].split("; ") == [
        "EVAL with keys quotes:writer quotes:latest quotes:stream:ANY-",
        "XADD quotes:stream:ANY-",
        "XADD quotes:events",
        "ZRANGEBYSCORE quotes:interest",
        "HSET quotes:latest",
        "HSET quotes:status",
        "HSET quotes:subscriptions",
        "HSET quotes:writer",
    ]
    assert everything(guarded) == []


@pytest.mark.fault("K25")
@pytest.mark.parametrize(
    ("pattern", "missing"),
    [
        ("~quotes:[^s]*", {"quotes:stream:ANY-", "quotes:symbols", "quotes:status", "quotes:subscriptions"}),
        ("~quotes:[^e]*", {"quotes:events"}),
        ("~quotes:[^w]*", {"quotes:writer"}),
        ("~other:*", set()),
    ],
)
async def test_keys_out_of_reach_are_listed_too(
    guarded: Redis, server: RedisServer, pattern: str, missing: set[str]
) -> None:
    """Each command with the keys that it may not touch."""
    grant(guarded, "+@all", pattern)
    with pytest.raises(NotPermitted) as refusal:
        await ask(server)
    said = set(re.findall(r"quotes:[a-zA-Z:-]+", str(refusal.value)))
    if missing:
        alone = {m[1] for m in re.finditer(r"[; ](?:[A-Z ]+) (quotes:[a-zA-Z:-]+)", str(refusal.value))}
        assert missing <= said
        assert alone <= missing | {"quotes:writer", "quotes:latest"}
    else:
        assert str(refusal.value).count(";") == len(needed(KEYS)) - 1
    grant(guarded, "+@all", "~quotes:*")
    assert await ask(server) == []


async def test_another_namespace_needs_its_own_keys(guarded: Redis, server: RedisServer) -> None:
    """A user of one has no right to the other."""
    grant(guarded, "+@all", "~quotes:*")
    with pytest.raises(NotPermitted, match=r"the Redis user of 'paper' may not: .*paper:stream:ANY-"):
        await ask(server, Keyspace("paper"))


@pytest.mark.parametrize("name", sorted(needed(KEYS)))
async def test_each_single_command_is_missed(guarded: Redis, server: RedisServer, name: str) -> None:
    """None of the list is there for show."""
    command = name.split()[0].lower()
    grant(guarded, "+@all", f"-{command}", "~*")
    with pytest.raises(NotPermitted) as refusal:
        await ask(server)
    assert name in str(refusal.value)


def fill(redis: Redis) -> dict[bytes, tuple[bytes, int]]:
    """What a daemon at work has on a server, and streams that are about to expire; all of it."""
    redis.hset(KEYS.writer, mapping={"epoch": 7, "batch": 41, "token": "theirs", "began": 1})
    redis.hset(KEYS.latest, "AAPL", "{}")
    redis.hset(KEYS.subscriptions, "AAPL", "{}")
    redis.hset(KEYS.status, mapping={"state": "live", "standby": "other", "heartbeat": "2026-01-05"})
    redis.sadd(KEYS.symbols, "AAPL")
    redis.zadd(KEYS.interest, {"AAPL@me": 1})
    for symbol in ("AAPL", "MSFT"):
        redis.xadd(KEYS.stream(symbol), {"q": "[]"}, id="5-1")
    redis.expire(KEYS.stream("MSFT"), 10_500)
    redis.xadd(KEYS.events, {"kind": "started"})
    return dump(redis)


def dump(redis: Redis) -> dict[bytes, tuple[bytes, int]]:
    """Every key with its serialized value, and roughly when it expires."""
    found: list[bytes] = everything(redis)
    return {key: (redis.dump(key), redis.ttl(key) // 1000) for key in found}  # type: ignore[misc]


NOT_A_TRANSACTION = {
    "no such command": b"-ERR unknown command 'MULTI', with args beginning with: \r\n",
    "not supported": b"-ERR transactions are not supported by this proxy\r\n",
    "unsupported": b"-ERR unsupported command 'multi'\r\n",
    "queued": b"+QUEUED\r\n",
    "pong": b"+PONG\r\n",
    "ok in small letters": b"+ok\r\n",
    "a number": b":1\r\n",
    "nothing": b"$-1\r\n",
    "an empty list": b"*0\r\n",
    "ok, and then carries out what follows": b"+OK\r\n",
}


@pytest.mark.fault("K48")
@pytest.mark.parametrize("answer", NOT_A_TRANSACTION)
async def test_a_server_without_transactions_is_left_as_it_is(
    guarded: Redis, server: RedisServer, answer: str
) -> None:
    """Whatever it answers to MULTI: it is refused in words, and not a byte of the data has changed."""
    before = fill(guarded)
    async with Answering(server.port, {"MULTI": NOT_A_TRANSACTION[answer]}) as proxy:
        with pytest.raises(CommandsDisabled, match=r"MULTI|PING") as refusal:
            await examine(RedisAddress(proxy.url), KEYS, Journal(), asyncio.Event())
    assert re.search("rename-command|a proxy without MULTI", str(refusal.value))
    assert dump(guarded) == before
    # Nothing but a PING was sent to what answered with OK, and nothing at all to the others.
    sent_after = proxy.seen[proxy.seen.index("MULTI") + 1 :]
    assert sent_after == (["PING"] if answer.startswith("ok,") else [])


@pytest.mark.fault("K48")
async def test_a_server_that_swallows_multi_is_not_asked_anything_else(
    guarded: Redis, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told as one that does not answer, and asked again from the beginning."""
    monkeypatch.setattr("ingestor.rights.TIMEOUT_S", 0.3)
    before = fill(guarded)
    journal, stop = Journal(), asyncio.Event()
    async with Answering(server.port, {"MULTI": SWALLOWED}) as proxy, asyncio.timeout(30):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(examine(RedisAddress(proxy.url), KEYS, journal, stop))
            await until(lambda: proxy.seen.count("MULTI") >= 2)
            stop.set()
        assert "did not answer" in journal.queue[0].details["reason"]
        assert set(proxy.seen) <= {"CLIENT", "HELLO", "INFO", "MULTI"}
    assert dump(guarded) == before


@pytest.mark.parametrize("name", sorted(needed(KEYS)))
async def test_what_is_asked_would_change_nothing_if_it_were_carried_out(guarded: Redis, name: str) -> None:
    """So that a server which does not queue what it should can do no harm."""
    before = fill(guarded)
    with contextlib.suppress(RedisError):
        guarded.execute_command(*needed(KEYS)[name])  # type: ignore[no-untyped-call]
    assert dump(guarded) == before


def test_what_is_asked_touches_no_symbol() -> None:
    """The name that stands for any symbol is none."""
    with pytest.raises(BadSymbol):
        parse_symbol(NO_SYMBOL)


def without(*commands: str) -> RedisServer:
    """A server on which these are disabled."""
    options = [word for command in commands for word in ("--rename-command", command, "")]
    return RedisServer(options=tuple(options))


@pytest.mark.fault("K48")
async def test_a_server_whose_transactions_are_disabled_is_refused() -> None:
    """By the server's own configuration, and with the same words as any other missing command."""
    with without("MULTI") as server, Redis.from_url(server.url) as redis:
        before = fill(redis)
        with pytest.raises(CommandsDisabled, match=r"does not have MULTI \(.*strategies\).*rename-command"):
            await ask(server, user="")
        assert dump(redis) == before


@pytest.mark.fault("K49")
async def test_all_disabled_commands_are_told_as_such_at_once() -> None:
    """Not as rights that somebody could grant: each with what needs it, and the remedy."""
    with (
        without("EVAL", "EVALSHA", "XINFO", "HSET") as server,
        Redis.from_url(server.url) as redis,
    ):
        with pytest.raises(CommandsDisabled) as refusal:
            await ask(server, user="")
        assert everything(redis) == []
    said = str(refusal.value)
    assert all(f"{name} (" in said for name in ("EVAL", "EVALSHA", "XINFO", "HSET"))
    assert "rename-command" in said
    assert "may not" not in said


@pytest.mark.fault("K49")
@pytest.mark.parametrize("name", sorted({str(command[0]) for command in needed(KEYS).values()}))
async def test_each_single_disabled_command_is_told(name: str) -> None:
    """By its name, once, however many keys it is needed for."""
    with without(name) as server, pytest.raises(CommandsDisabled) as refusal:
        await ask(server, user="")
    assert re.match(rf"this Redis does not have {name} \([a-z]", str(refusal.value))
    assert str(refusal.value).count(f"{name} (") == 1


@pytest.mark.fault("K49")
async def test_missing_rights_and_disabled_commands_are_told_together() -> None:
    """In one message, each as what it is."""
    with without("XTRIM") as server, Redis.from_url(server.url) as redis:
        grant(redis, "+@all", "-hdel", "~*")
        with pytest.raises(CommandsDisabled) as refusal:
            await ask(server)
    assert re.search(r"does not have XTRIM .* may not: HDEL quotes:latest; ", str(refusal.value))


@pytest.mark.fault("K49")
async def test_commands_that_are_not_essential_are_done_without_and_told() -> None:
    """CLIENT, CONFIG and INFO are disabled by many a service: a warning for what is lost, and on it goes."""
    with without("CLIENT", "CONFIG", "INFO") as server:
        notes = await ask(server, user="")
    assert [(note.kind, note.details["command"]) for note in notes] == [
        ("command_disabled", "INFO"),
        ("command_disabled", "CLIENT"),
    ]
    assert all(note.details["consequence"] for note in notes)


async def test_a_user_without_transactions_is_let_in(guarded: Redis, server: RedisServer) -> None:
    """Nothing can be asked without being done; what is missing will show when it is needed."""
    grant(guarded, "+@all", "-multi", "-xadd", "~*")
    assert await ask(server) == []


async def test_a_user_who_may_not_look_at_the_server_passes(guarded: Redis, server: RedisServer) -> None:
    """The daemon itself has no need of it."""
    grant(guarded, "+@all", "-info", "~*")
    assert await ask(server) == []


@pytest.mark.fault("K38")
@pytest.mark.parametrize("database", [0, 3])
@pytest.mark.parametrize("absent", [(), ("INFO",)])
async def test_a_node_of_a_cluster_is_refused(database: int, absent: tuple[str, ...]) -> None:
    """The message says what to use instead, also without the right to INFO, and before a database is chosen."""
    options = ["--cluster-enabled", "yes", *(w for name in absent for w in ("--rename-command", name, ""))]
    with RedisServer(port=free_port(), options=tuple(options)) as node:
        journal = Journal()
        with pytest.raises(Unsuitable, match=r"node of a Redis Cluster.*use a single server"):
            await examine(
                RedisAddress(node.url.replace("/0", f"/{database}")), KEYS, journal, asyncio.Event()
            )
        assert not journal.queue
        with Redis.from_url(node.url) as client:
            assert everything(client) == []


async def test_a_sentinel_is_refused(tmp_path: Path) -> None:
    """It answers like a server and holds no data; the message says whose address to give."""
    with RedisServer() as primary, sentinel(tmp_path, primary) as port, pytest.raises(Unsuitable) as refusal:
        async with asyncio.timeout(30):
            await examine(RedisAddress(f"redis://127.0.0.1:{port}/0"), KEYS, Journal(), asyncio.Event())
    assert re.search("this is a Sentinel.*the address of the primary", str(refusal.value))


@pytest.mark.fault("K15")
@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-random", "volatile-lru", "noeviction"])
async def test_a_server_that_may_evict_streams_is_warned_of(
    guarded: Redis, server: RedisServer, policy: str
) -> None:
    """With the remedy; the daemon works there all the same."""
    guarded.config_set("maxmemory-policy", policy)
    try:
        notes = await ask(server, user="")
    finally:
        guarded.config_set("maxmemory-policy", "noeviction")
    if policy.startswith("allkeys"):
        ((kind, details),) = [(note.kind, note.details) for note in notes]
        assert (kind, details["policy"]) == ("redis_evicts", policy)
        assert "noeviction" in details["remedy"]
    else:
        assert notes == []


@pytest.mark.fault("K01")
async def test_a_server_that_is_not_there_yet_is_waited_for(redis: Redis) -> None:
    """Told once, and asked again until it answers, or until we are to stop."""
    late = RedisServer()
    journal, stop = Journal(), asyncio.Event()
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        asked = tasks.create_task(examine(RedisAddress(late.url), KEYS, journal, stop))
        await until(lambda: bool(journal.queue))
        assert not asked.done()
        with late:
            await asked
    assert [note.kind for note in journal.queue] == ["redis_away"]
    stop.set()
    await examine(RedisAddress(late.url), KEYS, journal, stop)


@pytest.mark.fault("K24")
async def test_a_wrong_password_is_told_and_tried_again(guarded: Redis, server: RedisServer) -> None:
    """It may be set right while we wait."""
    grant(guarded, "+@all", "~*")
    journal, stop = Journal(), asyncio.Event()
    url = server.url.replace("redis://", "redis://daemon:wrong@")
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        asked = tasks.create_task(examine(RedisAddress(url), KEYS, journal, stop))
        await until(lambda: bool(journal.queue))
        assert not asked.done()
        assert "WRONGPASS" in journal.queue[0].details["reason"]
        guarded.execute_command("ACL", "SETUSER", "daemon", ">wrong")  # type: ignore[no-untyped-call]
        await asked
