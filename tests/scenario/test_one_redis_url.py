"""One URL, read alike at every door: daemon, command line, library; over TLS with real handshakes."""

import asyncio
import contextlib
import re
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest
from redis import Redis

from consumers import BusUnavailable, connect
from simulator.redis_server import RedisServer, free_port
from tests.commands.test_commands import quotebus
from tests.ingestor.answering import Answering
from tests.scenario.conftest import until
from tests.scenario.doors import DOORS, Refused, opened
from tests.scenario.sentinels import sentinel
from tests.scenario.streams import KEYS
from tests.scenario.tls import Authority, TlsFront
from wire.redis.answers import CLUSTER_NODE, SENTINEL

KEY_PASSWORD = "p@ss & word"


@dataclass(slots=True)
class Fronts:
    """A Redis behind fronts of each kind, and files at hand; `url` fills in what a test leaves in braces."""

    authority: Authority
    good: TlsFront
    other_name: TlsFront
    expired: TlsFront
    wants_certificate: TlsFront
    plain: RedisServer
    files: dict[str, str]

    def url(self, form: str) -> str:
        """The address that a row of the table means."""
        ports = {
            name: front.port
            for name in ("good", "other_name", "expired", "wants_certificate", "plain")
            if (front := getattr(self, name))
        }
        return form.format(**ports, **self.files)


@pytest.fixture
async def fronts(own_server: RedisServer, tmp_path: Path) -> AsyncIterator[Fronts]:
    """All of them, over one server."""
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    certificate, key = authority.client_files()
    encrypted_certificate, encrypted_key = authority.client_files(KEY_PASSWORD)
    foreign_certificate, foreign_key = other.client_files()
    (tmp_path / "empty.pem").touch()
    (tmp_path / "nothing").mkdir()
    files = {
        "ca": str(authority.file),
        "ca_path": str(authority.hashed_folder()),
        "ca_data": quote(authority.pem, safe=""),
        "other_ca": str(other.file),
        "cert": f"ssl_certfile={certificate}&ssl_keyfile={key}",
        "locked": f"ssl_certfile={encrypted_certificate}&ssl_keyfile={encrypted_key}",
        "foreign": f"ssl_certfile={foreign_certificate}&ssl_keyfile={foreign_key}",
        "mixed": f"ssl_certfile={certificate}&ssl_keyfile={foreign_key}",
        "key_password": quote(KEY_PASSWORD, safe=""),
        "folder": str(tmp_path),
    }
    good, port = authority.certificate(), own_server.port
    async with (
        TlsFront(port, good) as as_it_should_be,
        TlsFront(port, authority.certificate("redis.example")) as other_name,
        TlsFront(port, authority.certificate(expired=True)) as expired,
        TlsFront(port, good, clients=authority) as wants_certificate,
    ):
        yield Fronts(authority, as_it_should_be, other_name, expired, wants_certificate, own_server, files)


GOOD = "rediss://localhost:{good}/0"
MUTUAL = "rediss://localhost:{wants_certificate}/0?ssl_ca_certs={ca}"
OPEN = {
    "no TLS": "redis://127.0.0.1:{plain}/0",
    "another database": "redis://127.0.0.1:{plain}/3",
    "the database as an option": "redis://127.0.0.1:{plain}?db=3&socket_timeout=4&socket_connect_timeout=4",
    "an authority's file": GOOD + "?ssl_ca_certs={ca}",
    "an authority's folder": GOOD + "?ssl_ca_path={ca_path}",
    "an authority's text": GOOD + "?ssl_ca_data={ca_data}",
    "an address in the certificate": "rediss://127.0.0.1:{good}/0?ssl_ca_certs={ca}",
    "TLS 1.3 at the least": GOOD + "?ssl_ca_certs={ca}&ssl_min_version=1.3",
    "a choice of ciphers": GOOD + "?ssl_ca_certs={ca}&ssl_ciphers=ECDHE%2BAESGCM",
    "another name, not looked at": "rediss://localhost:{other_name}/0?ssl_ca_certs={ca}&ssl_check_hostname=false",
    "nothing looked at": "rediss://localhost:{expired}/0?ssl_cert_reqs=none",
    "a certificate of ours": MUTUAL + "&{cert}",
    "a certificate with an encrypted key": MUTUAL + "&{locked}&ssl_password={key_password}",
}
SHUT = {
    "an authority that is not known": (
        GOOD,
        r"certificate is not accepted: .*unable to get local.*ssl_ca_certs",
    ),
    "another authority": (GOOD + "?ssl_ca_certs={other_ca}", r"unable to get local issuer.*ssl_ca_certs"),
    "another name": (
        "rediss://localhost:{other_name}/0?ssl_ca_certs={ca}",
        r"Hostname mismatch.*'localhost'.*ssl_check_hostname=false",
    ),
    "another address": (
        "rediss://127.0.0.1:{other_name}/0?ssl_ca_certs={ca}",
        r"IP address mismatch.*ssl_check_hostname=false",
    ),
    "expired": (
        "rediss://localhost:{expired}/0?ssl_ca_certs={ca}",
        r"certificate has expired; have it renewed on the server",
    ),
    "no certificate of ours": (MUTUAL, r"asks for a certificate of ours.*ssl_certfile"),
    "a certificate that is not trusted": (
        MUTUAL + "&{foreign}",
        r"our certificate.*ssl_certfile",
    ),
    "a port without TLS": (
        "rediss://localhost:{plain}/0?ssl_ca_certs={ca}",
        r"does not speak TLS(:|,) write redis://",
    ),
    "TLS not asked for": ("redis://localhost:{good}/0", r"speaks TLS.* write rediss://"),
}
UNUSABLE = {
    "a missing authority": (
        GOOD + "?ssl_ca_certs={folder}/gone.pem",
        r"ssl_ca_certs=\S+/gone\.pem cannot be read \(No such file or directory\)",
    ),
    "an authority that is a folder": (GOOD + "?ssl_ca_certs={folder}", r"ssl_ca_certs=\S+ cannot be read"),
    "an empty authority": (GOOD + "?ssl_ca_certs={folder}/empty.pem", r"empty\.pem holds no certificate"),
    "an authority's folder without hashes": (GOOD + "?ssl_ca_path={folder}", r"openssl rehash"),
    "a missing folder": (GOOD + "?ssl_ca_path={folder}/gone", r"ssl_ca_path=\S+/gone cannot be read"),
    "text that is none": (GOOD + "?ssl_ca_data=hello", r"ssl_ca_data holds no certificate"),
    "a missing certificate": (
        MUTUAL + "&ssl_certfile={folder}/gone",
        r"ssl_certfile=\S+/gone cannot be read",
    ),
    "a missing key": (
        MUTUAL + "&ssl_certfile={ca}&ssl_keyfile={folder}/gone",
        r"ssl_keyfile=\S+/gone cannot be read",
    ),
    "an encrypted key without its password": (MUTUAL + "&{locked}", r"is encrypted: give .* ssl_password"),
    "an encrypted key with a wrong password": (
        MUTUAL + "&{locked}&ssl_password=hunter22",
        r"cannot be opened: ssl_password is wrong",
    ),
    "a key of another certificate": (MUTUAL + "&{mixed}", r"does not belong to the certificate"),
    "an empty certificate": (MUTUAL + "&ssl_certfile={folder}/empty.pem", r"both must be PEM"),
    "ciphers that there are not": (GOOD + "?ssl_ciphers=ROT13", r"ssl_ciphers names no cipher"),
    "a database that is a name": (
        "redis://localhost:{plain}/quotes",
        r"database 'quotes'; a database is a number",
    ),
    "an option that nobody knows": (
        "redis://localhost:{plain}/0?nonsense=1",
        r"nonsense, which nobody knows",
    ),
    "another protocol": ("redis://localhost:{plain}/0?protocol=3", r"protocol .*must be 2"),
    "an option of TLS without TLS": (
        "redis://localhost:{plain}/0?ssl_cert_reqs=none",
        r"ssl_cert_reqs, which needs rediss://",
    ),
}


@pytest.mark.fault("K50")
@pytest.mark.parametrize("door", DOORS)
async def test_each_door_opens_with_what_the_others_open_with(fronts: Fronts, door: str) -> None:
    """Every option is heeded by all."""
    for what, form in OPEN.items():
        try:
            await opened(door, fronts.url(form))
        except Refused as refusal:
            pytest.fail(f"{what}: {refusal}")


@pytest.mark.fault("K39", "K50")
@pytest.mark.parametrize("door", DOORS)
async def test_each_door_stays_shut_for_the_same_reasons(fronts: Fronts, door: str) -> None:
    """Told in words with a remedy that fits, and never as a server that is not running."""
    for what, (form, said) in SHUT.items():
        with pytest.raises(Refused) as refusal:
            await opened(door, fronts.url(form))
        assert re.search(said, str(refusal.value)), f"{what}: {refusal.value}"
        assert "is the server running" not in str(refusal.value), what


@pytest.mark.fault("K50")
@pytest.mark.parametrize("door", DOORS)
async def test_each_door_tells_what_cannot_be_used_before_it_connects(fronts: Fronts, door: str) -> None:
    """The file, the option, the remedy, and no secret."""
    for what, (form, said) in UNUSABLE.items():
        with pytest.raises(Refused) as refusal:
            await opened(door, fronts.url(form))
        assert re.search(said, str(refusal.value)), f"{what}: {refusal.value}"
        assert "hunter22" not in str(refusal.value)
    assert all(
        front.accepted == 0
        for front in (fronts.good, fronts.other_name, fronts.expired, fronts.wants_certificate)
    )


async def run(arguments: list[str], url: str) -> subprocess.CompletedProcess[str]:
    """One command to its end, with keys that no Alpaca knows."""
    keys = {"APCA_API_KEY_ID": "PKTESTKEY1234", "APCA_API_SECRET_KEY": "very-secret-value-5678"}
    return await asyncio.to_thread(partial(quotebus, *arguments, url=url, **keys))  # type: ignore[arg-type]


async def read(url: str) -> None:
    """Read one stream for as long as it goes well."""
    async with asyncio.timeout(30), connect(url) as bus:
        async for _ in bus.quotes("AAPL", start="earliest", lease=False):
            pass


async def work(url: str) -> None:
    """Work in a group for as long as it goes well."""
    async with asyncio.timeout(30), connect(url) as bus:
        async for _ in bus.group("g", "AAPL", lease=False):
            pass


COMMANDS = {
    "run": ["run"],
    "symbols ls": ["symbols", "ls"],
    "symbols add": ["symbols", "add", "AAPL"],
    "symbols rm": ["symbols", "rm", "AAPL"],
    "status": ["status"],
    "tail": ["tail", "AAPL", "--count", "1"],
}


@pytest.mark.fault("K50")
@pytest.mark.parametrize("command", COMMANDS)
async def test_each_command_takes_the_same_url(fronts: Fronts, command: str) -> None:
    """Exit code 2 for what must be mended in the address, and a server with mutual TLS is as good as any."""
    arguments = COMMANDS[command]
    for what in ("a missing authority", "an option that nobody knows"):
        form, said = UNUSABLE[what]
        done = await run(arguments, fronts.url(form))
        assert done.returncode == 2, done
        assert re.search(said, done.stderr), done.stderr
        assert "Traceback" not in done.stderr
    if command in ("run", "tail"):
        return
    url = fronts.url(OPEN["a certificate with an encrypted key"])
    done = await run(arguments, url)
    assert done.returncode == (1 if command == "status" else 0), done
    assert done.stderr in ("", "no symbols yet; add some with: quotebus symbols add AAPL\n")


@pytest.mark.fault("K38")
@pytest.mark.parametrize("kind", ["a node of a cluster", "a node that takes writes", "a Sentinel"])
async def test_what_cannot_hold_the_bus_is_called_the_same_at_every_door(kind: str, tmp_path: Path) -> None:
    """One sentence, exit code 2 or a clear error, and nothing is written."""
    with contextlib.ExitStack() as stack:
        if kind == "a Sentinel":
            port = stack.enter_context(sentinel(tmp_path, stack.enter_context(RedisServer())))
            sentence = SENTINEL
        else:
            options = ("--cluster-enabled", "yes")
            port = stack.enter_context(RedisServer(port=free_port(), options=options)).port
            sentence = CLUSTER_NODE
        if kind == "a node that takes writes":
            await take_all_slots(port)
        for url in (f"redis://127.0.0.1:{port}/0", f"redis://127.0.0.1:{port}/2"):
            for door in sorted(set(DOORS) - {"the daemon's control connections"}):
                with pytest.raises(Refused) as refusal:
                    await opened(door, url)
                assert sentence in str(refusal.value), door
            for command in ("run", "symbols add", "tail") if sentence is CLUSTER_NODE else ("symbols add",):
                done = await run(COMMANDS[command], url)
                assert done.returncode == 2, done
                assert sentence in done.stdout + done.stderr
        with Redis(port=port) as client:
            if kind != "a Sentinel":
                assert client.keys() == []


async def take_all_slots(port: int) -> None:
    """Have a node serve every key by itself, so that nothing but our own care keeps us from writing to it."""
    with Redis(port=port) as client:
        client.execute_command("CLUSTER", "ADDSLOTS", *range(16_384))

        async def serves() -> bool:
            info: bytes = client.execute_command("CLUSTER", "INFO")
            return b"cluster_state:ok" in info

        await until(serves)


@pytest.mark.fault("K49")
async def test_without_what_is_not_essential_all_doors_open(tmp_path: Path) -> None:
    """CLIENT, CONFIG and INFO are disabled by many a service."""
    options = [word for name in ("CLIENT", "CONFIG", "INFO") for word in ("--rename-command", name, "")]
    with RedisServer(options=tuple(options)) as server:
        for door in DOORS:
            await opened(door, server.url)


@pytest.mark.fault("K48", "K49")
@pytest.mark.parametrize("name", ["MULTI", "XINFO", "HMGET"])
async def test_a_reader_says_which_command_the_server_lacks(name: str) -> None:
    """And does not try for ever: nobody mends it by waiting."""
    with RedisServer(options=("--rename-command", name, "")) as server:
        with pytest.raises(BusUnavailable, match=rf"does not have {name} \(.*rename-command") as refusal:
            await read(server.url)
        assert not refusal.value.is_passing


@pytest.mark.fault("K48")
async def test_a_group_takes_no_entries_where_there_are_no_transactions(own_server: RedisServer) -> None:
    """They would be delivered, and their answer be lost: pending with a worker that never saw them."""
    with Redis.from_url(own_server.url) as redis:
        redis.xadd(KEYS.stream("AAPL"), {"q": "[1,1,null,1,1,null,null,null,1,1]"}, id="5-1")
        redis.xgroup_create(KEYS.stream("AAPL"), "g", "0")
        async with Answering(own_server.port, {"MULTI": b"+QUEUED\r\n"}) as proxy:
            with pytest.raises(BusUnavailable, match="has no transactions"):
                await work(proxy.url)
        (group,) = redis.xinfo_groups(KEYS.stream("AAPL"))
        assert (group["pending"], group["entries-read"]) == (0, None)
