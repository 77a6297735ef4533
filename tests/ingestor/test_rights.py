"""What a daemon asks of a server before it writes: all that is missing in one sentence, and nothing is changed."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis, ResponseError

from ingestor.journal import Journal
from ingestor.redis_link import RedisAddress
from ingestor.rights import NotPermitted, Unsuitable, examine, needed
from simulator.redis_server import RedisServer, free_port
from tests.ingestor.waiting import until
from tests.ingestor.writer import KEYS
from wire import Keyspace

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
        "EVAL with keys quotes:writer quotes:latest quotes:stream:AAPL",
        "XADD quotes:stream:AAPL",
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
        ("~quotes:[^s]*", {"quotes:stream:AAPL", "quotes:symbols", "quotes:status", "quotes:subscriptions"}),
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
    said = set(re.findall(r"quotes:[a-zA-Z:]+", str(refusal.value)))
    if missing:
        alone = {m[1] for m in re.finditer(r"[; ](?:[A-Z ]+) (quotes:[a-zA-Z:]+)", str(refusal.value))}
        assert missing <= said
        assert alone <= missing | {"quotes:writer", "quotes:latest"}
    else:
        assert str(refusal.value).count(";") == len(needed(KEYS)) - 1
    grant(guarded, "+@all", "~quotes:*")
    assert await ask(server) == []


async def test_another_namespace_needs_its_own_keys(guarded: Redis, server: RedisServer) -> None:
    """A user of one has no right to the other."""
    grant(guarded, "+@all", "~quotes:*")
    with pytest.raises(NotPermitted, match=r"the Redis user of 'paper' may not: .*paper:stream:AAPL"):
        await ask(server, Keyspace("paper"))


@pytest.mark.parametrize("name", sorted(needed(KEYS)))
async def test_each_single_command_is_missed(guarded: Redis, server: RedisServer, name: str) -> None:
    """None of the list is there for show."""
    command = name.split()[0].lower()
    grant(guarded, "+@all", f"-{command}", "~*")
    with pytest.raises(NotPermitted) as refusal:
        await ask(server)
    assert name in str(refusal.value)


async def test_a_user_without_transactions_is_let_in(guarded: Redis, server: RedisServer) -> None:
    """Nothing can be asked without being done; what is missing will show when it is needed."""
    grant(guarded, "+@all", "-multi", "-xadd", "~*")
    assert await ask(server) == []


async def test_a_user_who_may_not_look_at_the_server_passes(guarded: Redis, server: RedisServer) -> None:
    """The daemon itself has no need of it."""
    grant(guarded, "+@all", "-info", "~*")
    assert await ask(server) == []


@pytest.mark.fault("K38")
async def test_a_node_of_a_cluster_is_refused() -> None:
    """The keys of one call lie on several nodes there; the message says what to use instead."""
    with RedisServer(port=_low_port(), options=("--cluster-enabled", "yes")) as node:
        with pytest.raises(Unsuitable, match=r"node of a Redis Cluster.*use a single server"):
            await ask(node, user="")
        with Redis.from_url(node.url) as client:
            assert everything(client) == []


def _low_port() -> int:
    """The cluster's own port lies 10000 above."""
    while (port := free_port()) > 55_000:
        pass
    return port


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
