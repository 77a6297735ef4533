"""`quotebus symbols`, `status`, `tail`, `run`, `simulate` and `demo`, each as a process."""

import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py

from ingestor.subscriptions.desired import shown
from simulator.redis_server import RedisServer, free_port
from tests.warm_starts import warm_starts
from wire import Keyspace, encode_gap, encode_latest, encode_quote

KEYS = Keyspace()
QUOTEBUS = [str(Path(sys.executable).parent / "quotebus")]
COMMANDS = ["run", "demo", "simulate", "symbols add", "symbols rm", "symbols ls", "status", "tail"]
TIMEOUT_S = 90.0
ROW = (187.12, 300, "V", 187.13, 200, "N", ["R"], "C", 1_763_000_004_123_825_050, 8052)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """One server for this module."""
    with RedisServer() as running:
        yield running


@pytest.fixture
def redis(server: RedisServer) -> Iterator["redis_py.Redis"]:
    """A client of the emptied server."""
    with redis_py.Redis.from_url(server.url, decode_responses=True) as client:
        client.flushall()
        yield client


def quotebus(
    *arguments: str, url: str = "", cwd: Path | None = None, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    surroundings, folder = environment(url, **more), str(cwd or "/")
    warm = warm_starts()
    if warm is not None and warm.serves(surroundings):
        return warm.run([*QUOTEBUS, *arguments], surroundings, folder, TIMEOUT_S)
    return subprocess.run(
        [*QUOTEBUS, *arguments],
        env=surroundings,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        cwd=folder,
        check=False,
    )


def environment(url: str = "", **more: str) -> dict[str, str]:
    """An environment without anything of the developer's own."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("QUOTEBUS_", "APCA_", "ALPACA_"))}
    return {**own, **({"QUOTEBUS_REDIS_URL": url} if url else {}), **more}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    """--help ends with an example that begins with the program's name, and exits 0."""
    done = quotebus(*command.split(), "--help")
    assert done.returncode == 0
    assert re.search(r"Example: .*quotebus " + command, done.stdout)


def test_symbols_are_added_listed_and_removed(server: RedisServer, redis: "redis_py.Redis") -> None:
    """add, ls and rm edit and show the set that redis-cli would."""
    assert quotebus("symbols", "add", "aapl", "MSFT", url=server.url).stdout == "added 2\n"
    assert quotebus("symbols", "add", "AAPL", "NVDA", url=server.url).stdout == "added 1, 1 already there\n"
    redis.hset(KEYS.subscriptions, "AAPL", json.dumps({"state": "live", "reason": None, "since": "x"}))
    shown = json.loads(quotebus("symbols", "ls", "--json", url=server.url).stdout)
    assert [(row["symbol"], row["desired"], row["state"]) for row in shown] == [
        ("AAPL", True, "live"),
        ("MSFT", True, "unseen"),
        ("NVDA", True, "unseen"),
    ]
    listed = quotebus("symbols", "ls", url=server.url).stdout
    assert "AAPL  live       stale           no daemon has written here\n" in listed
    seconds, _ = redis.time()
    beat = datetime.fromtimestamp(seconds, UTC).isoformat()
    redis.hset(KEYS.status, mapping={"state": "live", "heartbeat": beat, "connected_since": beat})
    state = {"state": "live", "reason": "no quote for 10 s", "since": beat}
    redis.hset(KEYS.subscriptions, "AAPL", json.dumps(state))
    listed = quotebus("symbols", "ls", url=server.url).stdout
    assert "AAPL  live       quiet           no quote yet; no quote for 10 s\n" in listed
    redis.delete(KEYS.status)
    assert quotebus("symbols", "rm", "msft", url=server.url).stdout == "removed 1\n"
    # Beside the one that was meant, a misspelt member goes alone.
    redis.sadd(KEYS.symbols, "MSFT", "msft")
    assert quotebus("symbols", "rm", "msft", url=server.url).stdout == "removed 1\n"
    assert redis.sismember(KEYS.symbols, "MSFT")
    assert quotebus("symbols", "rm", "msft", url=server.url).stdout == "removed 1\n"
    assert redis.smembers(KEYS.symbols) == {"AAPL", "NVDA"}


def test_the_list_tells_who_wants_what_and_for_how_long(server: RedisServer, redis: "redis_py.Redis") -> None:
    """Also symbols that a lease alone asks for; the longest lease first, and none that has expired."""
    redis.sadd(KEYS.symbols, "AAPL")
    seconds, _ = redis.time()
    ends = {"AAPL@desk:1": 900, "AAPL@desk:2": 600, "NVDA@desk:1": 900, "OLD@desk:3": -1}
    redis.zadd(KEYS.interest, {member: (seconds + left) * 1000 for member, left in ends.items()})
    redis.zadd(KEYS.interest, {f"NVDA@nb-{n}": (seconds + 90 + n) * 1000 for n in range(4)})
    redis.zadd(KEYS.interest, {"TSLA@by-hand": "+inf"})
    shown = json.loads(quotebus("symbols", "ls", "--json", url=server.url).stdout)
    rows = {row["symbol"]: row for row in shown}
    assert {name: row["desired"] for name, row in rows.items()} == {
        "AAPL": True,
        "NVDA": False,
        "TSLA": False,
    }
    assert [holder["id"] for holder in rows["AAPL"]["consumers"]] == ["desk:1", "desk:2"]
    assert 500 < rows["AAPL"]["consumers"][1]["seconds_left"] <= 600
    assert rows["TSLA"]["consumers"] == [{"id": "by-hand", "seconds_left": None}]
    listed = quotebus("symbols", "ls", url=server.url).stdout.splitlines()
    assert re.search(r"^AAPL  .*; leased by desk:1 \(\d+ s\), desk:2 \(\d+ s\)$", listed[0])
    assert re.search(r"^NVDA  .*; only leased, by desk:1 .*, nb-3 .*, nb-2 \(\d+ s\) and 2 more$", listed[1])
    assert listed[2].endswith("only leased, by by-hand (for ever)")


def test_no_member_of_the_sets_can_act_on_the_terminal(server: RedisServer, redis: "redis_py.Redis") -> None:
    """Escapes, line ends, right-to-left marks, bytes that are no text, and a member as long as a book."""
    hostile = [b"\x1b[2J\x9b31m", b"a\r\nb", "\u202egnp.exe\u009b".encode(), b"\xff\xfe", b"x" * 10_000, b""]
    redis.zadd(KEYS.interest, {b"AAPL@" + text: "+inf" for text in hostile})
    redis.zadd(KEYS.interest, {text + b"@me": "+inf" for text in hostile})
    redis.zadd(KEYS.interest, dict.fromkeys(hostile, "+inf"))
    redis.sadd(KEYS.symbols, *hostile)
    for arguments in (("symbols", "ls"), ("symbols", "ls", "--json")):
        done = quotebus(*arguments, url=server.url)
        assert done.returncode == 0, done.stderr
        assert all(line.isprintable() for line in done.stdout.rstrip("\n").split("\n"))
    (row,) = (row for row in json.loads(done.stdout) if row["symbol"] == "AAPL")
    assert len(row["consumers"]) == len(hostile)


def test_a_key_of_leases_that_cannot_be_read_is_told_of(server: RedisServer, redis: "redis_py.Redis") -> None:
    """The rest is listed all the same."""
    redis.sadd(KEYS.symbols, "AAPL")
    redis.set(KEYS.interest, "x")
    done = quotebus("symbols", "ls", url=server.url)
    assert done.returncode == 0
    assert done.stdout.startswith("AAPL")
    assert "WRONGTYPE" in done.stderr


def test_adding_what_cannot_be_a_symbol_adds_nothing_and_says_why(
    server: RedisServer, redis: "redis_py.Redis"
) -> None:
    """One bad name refuses the whole command with exit code 2 and its reason."""
    done = quotebus("symbols", "add", "AAPL", "B*D", url=server.url)
    assert done.returncode == 2
    assert "'B*D'" in done.stderr
    assert "wildcards" in done.stderr
    assert redis.exists(KEYS.symbols) == 0


def test_every_wrong_name_is_told_with_what_was_meant_or_what_it_is(
    server: RedisServer, redis: "redis_py.Redis"
) -> None:
    """All in one report, so that a list is mended in one go; nothing of it is added."""
    done = quotebus(
        *(
            "symbols",
            "add",
            "AAPL",
            "brk-b",
            "BTCUSD",
            "AAPL241220C00150000",
            "$MSFT",
            "ES=F",
            "^GSPC",
            "A,B",
        ),
        url=server.url,
    )
    assert done.returncode == 2
    told = done.stderr.splitlines()
    assert told[0] == "quotebus: nothing was added:"
    for line, name, what in (
        (told[1], "brk-b", "did you mean BRK.B?"),
        (told[2], "BTCUSD", "a crypto pair (BTC/USD), which this feed of US stocks does not carry"),
        (told[3], "AAPL241220C00150000", "an option contract on AAPL"),
        (told[4], "$MSFT", "did you mean MSFT?"),
        (told[5], "ES=F", "a futures contract"),
        (told[6], "^GSPC", "an index"),
        (told[7], "A,B", "several names in one"),
    ):
        assert repr(name) in line
        assert what in line
    assert redis.exists(KEYS.symbols) == 0


@pytest.mark.parametrize(
    "command", [["symbols", "ls"], ["status"], ["symbols", "add", "AAPL"], ["tail", "AAPL"]]
)
def test_a_redis_that_cannot_be_reached_is_one_sentence_and_exit_code_1(command: list[str]) -> None:
    """No traceback: the address, the reason and the remedy, without the password."""
    done = quotebus(*command, url="redis://:hunter2@127.0.0.1:1/0")
    assert done.returncode == 1
    assert "127.0.0.1:1" in done.stderr
    assert "hunter2" not in done.stderr
    assert "Traceback" not in done.stderr


def test_status_says_whether_a_daemon_is_alive(server: RedisServer, redis: "redis_py.Redis") -> None:
    """Nothing written and an old heartbeat are exit code 1; a fresh heartbeat is 0; --json is JSON."""
    assert quotebus("status", url=server.url).returncode == 1
    redis.hset(KEYS.status, mapping={"state": "live", "heartbeat": "2025-01-01T00:00:00.000Z"})
    done = quotebus("status", "--json", url=server.url)
    assert done.returncode == 1
    assert "old" in json.loads(done.stdout)["problem"]
    now = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
    redis.hset(KEYS.status, mapping={"state": "live", "heartbeat": now})
    done = quotebus("status", url=server.url)
    assert done.returncode == 0
    assert re.search(r"alive +yes", done.stdout)


NOW = "%Y-%m-%dT%H:%M:%S.000Z"
ODD_STATUS: list[tuple[dict[Any, Any], str]] = [
    ({"contract": "99", "state": "x", "heartbeat": "abc", "live": "nan"}, "heartbeat is not readable"),
    ({"heartbeat": ""}, "heartbeat is not readable"),
    ({"heartbeat": "2026-01-05T14:30:00"}, "heartbeat is not readable"),
    ({"heartbeat": "1e300"}, "heartbeat is not readable"),
    ({"heartbeat": "9999-12-31T23:59:59Z"}, "ahead of this machine's clock"),
    ({"heartbeat": "0001-01-02T00:00:00Z"}, "s old"),
    ({b"heartbeat": b"\xff"}, "heartbeat is not readable"),
    ({"state": "live"}, "heartbeat is not readable"),
    ({b"\xff\x1b[2J": b"\x1b[31m\r\nx\x9b", "state": "\u202e"}, "heartbeat is not readable"),
]


@pytest.mark.parametrize(("fields", "says"), ODD_STATUS)
def test_odd_fields_of_status_are_a_sentence_and_no_act_on_the_terminal(
    server: RedisServer, redis: "redis_py.Redis", fields: dict[Any, Any], says: str
) -> None:
    """Whoever wrote them: exit code 1, and `symbols ls` reads the same hash."""
    redis.hset(KEYS.status, mapping=fields)
    redis.sadd(KEYS.symbols, "AAPL")
    for arguments in (("status",), ("status", "--json"), ("symbols", "ls")):
        done = quotebus(*arguments, url=server.url)
        assert done.returncode == ("symbols" not in arguments), done
        assert done.stderr == ""
        assert "symbols" in arguments or says in done.stdout
        assert all(line.isprintable() for line in done.stdout.rstrip("\n").split("\n"))


def test_fields_that_are_odd_do_not_hide_a_live_daemon(server: RedisServer, redis: "redis_py.Redis") -> None:
    """Its heartbeat tells that it lives."""
    names = ("storing", "standby", "instance", "connected_since", "stored", "contract")
    redis.hset(KEYS.status, mapping={"state": "live", **dict.fromkeys(names, "\x1b[2J" + "x" * 10_000)})
    redis.hset(KEYS.subscriptions, "AAPL", '{"state": "live", "reason": 5, "since": []}')
    for arguments in (("status",), ("status", "--json"), ("symbols", "ls")):
        redis.hset(KEYS.status, "heartbeat", time.strftime(NOW, time.gmtime(time.time_ns() / 1e9 + 3)))
        done = quotebus(*arguments, url=server.url)
        assert done.returncode == 0, done
        assert all(line.isprintable() for line in done.stdout.rstrip("\n").split("\n"))


def test_a_member_that_is_no_symbol_is_one_line_under_the_name_that_refuses_it(
    server: RedisServer, redis: "redis_py.Redis"
) -> None:
    """The member itself stands in --json, so that it can be taken out."""
    odd = [b"", b"\0", b"x" * 300, b"AAPL\n", b"\xff" * 60, "\u00e9".encode() * 40]
    redis.sadd(KEYS.symbols, "MSFT", *odd)
    for member in odd:
        refused = json.dumps({"state": "refused", "reason": "no symbol", "since": None})
        redis.hset(KEYS.subscriptions, shown(member), refused)
    rows = json.loads(quotebus("symbols", "ls", "--json", url=server.url).stdout)
    assert {row["symbol"]: (row["state"], row["desired"], row["member"]) for row in rows} == {
        "MSFT": ("unseen", True, "MSFT"),
        **{shown(each): ("refused", True, each.decode("utf-8", "backslashreplace")) for each in odd},
    }
    assert len(quotebus("symbols", "ls", url=server.url).stdout.splitlines()) == len(odd) + 1


def test_a_lease_that_lasts_longer_than_anything_is_told_in_few_digits(
    server: RedisServer, redis: "redis_py.Redis"
) -> None:
    """Its score may be any number."""
    redis.zadd(KEYS.interest, {"AAPL@me": 1e300})
    assert quotebus("symbols", "ls", url=server.url).stdout.endswith("by me (more than 1000000000 s)\n")


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="this system has no device that is always full")
@pytest.mark.parametrize(
    "arguments",
    [
        *(["--help"], ["run", "--help"], ["symbols", "ls"], ["symbols", "ls", "--json"]),
        *(["symbols", "add", "AAPL"], ["status", "--json"]),
        ["tail", "AAPL", "--start", "earliest", "-n", "1"],
    ],
    ids=" ".join,
)
def test_an_output_that_takes_nothing_is_one_sentence_and_exit_code_1(
    server: RedisServer, redis: "redis_py.Redis", arguments: list[str]
) -> None:
    """A full disk, with few lines and with many."""
    redis.sadd(KEYS.symbols, *(f"A{number}" for number in range(1000)))
    redis.hset(KEYS.status, mapping={"state": "live", "heartbeat": time.strftime(NOW, time.gmtime())})
    redis.xadd(KEYS.stream("AAPL"), {"q": encode_quote(ROW)}, id="1763000004123-825050000")
    with FULL.open("w") as full:
        done = subprocess.run(
            [*QUOTEBUS, *arguments],
            env=environment(server.url),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=90,
            cwd="/",
            check=False,
        )
    assert done.returncode == 1, done
    assert done.stderr.splitlines()[-1] == (
        "quotebus: standard output cannot be written: No space left on device"
    )
    assert "Traceback" not in done.stderr


def test_tail_prints_quotes_and_gaps_as_lines_or_json(server: RedisServer, redis: "redis_py.Redis") -> None:
    """From the earliest entry on, each quote and each gap is one line."""
    redis.xadd(KEYS.stream("AAPL"), {"q": encode_quote(ROW)}, id="1763000004123-825050000")
    redis.xadd(
        KEYS.stream("AAPL"),
        {"gap": encode_gap(1, 2_000_000_001, "feed_disconnected", 7)},
        id="1763000005000-0",
    )
    redis.hset(KEYS.latest, "AAPL", encode_latest("AAPL", "1763000004123-825050000", ROW))
    lines = quotebus("tail", "AAPL", "--start", "earliest", "-n", "2", url=server.url).stdout.splitlines()
    assert re.search(r"AAPL +187\.12 +300 V +187\.13 +200 N +R", lines[0])
    assert "gap of 2.000 s: feed_disconnected" in lines[1]
    done = quotebus("tail", "AAPL", "--start", "earliest", "-n", "2", "--json", url=server.url)
    quote, gap = map(json.loads, done.stdout.splitlines())
    assert (quote["type"], quote["bid_price"], quote["time_ns"]) == ("quote", 187.12, ROW[8])
    assert (gap["type"], gap["reason"]) == ("gap", "feed_disconnected")


def test_a_wrong_start_is_wrong_usage(server: RedisServer) -> None:
    """Exit code 2 and a sentence that shows how to write it."""
    done = quotebus("tail", "AAPL", "--start", "yesterday", url=server.url)
    assert done.returncode == 2
    assert "'now'" in done.stderr
    assert "Traceback" not in done.stderr


def test_run_reports_all_problems_of_its_settings_together(tmp_path: Path) -> None:
    """Missing keys, a bad port and a misspelt variable are one report, with exit code 2."""
    done = quotebus(
        "run", cwd=tmp_path, QUOTEBUS_HTTP="nowhere", QUOTEBUS_STREAM_MAXLENGTH="5", QUOTEBUS_FEED="nyse"
    )
    assert done.returncode == 2
    for part in ("APCA_API_KEY_ID", "APCA_API_SECRET_KEY", "QUOTEBUS_HTTP", "QUOTEBUS_FEED"):
        assert part in done.stderr
    assert "did you mean QUOTEBUS_STREAM_MAXLEN?" in done.stderr
    assert "Traceback" not in done.stderr


def test_run_reads_a_dotenv_file_and_the_environment_goes_before_it(tmp_path: Path) -> None:
    """What .env sets is used; what the environment sets wins."""
    (tmp_path / ".env").write_text(
        "APCA_API_KEY_ID=k\nAPCA_API_SECRET_KEY=s\nQUOTEBUS_HTTP=bad\nQUOTEBUS_FEED=bad\n"
    )
    done = quotebus("run", cwd=tmp_path, QUOTEBUS_FEED="iex")
    assert done.returncode == 2
    assert "QUOTEBUS_HTTP" in done.stderr
    assert "QUOTEBUS_FEED" not in done.stderr
    assert "APCA" not in done.stderr


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("APCA_API_KEY_ID=k\n".encode("utf-16"), "is UTF-16, as some editors save it; save it as UTF-8"),
        ("APCA_API_KEY_ID=k\n".encode("utf-32"), "is UTF-32; save it as UTF-8"),
        (b"#" * 1_048_577, "has more than 1048576 bytes, so it is not the file that is meant"),
        (b"A=1\nB=\xe9\n", "has a byte in line 2 that is not UTF-8"),
        (b"A=\0\n", "has a NUL character in line 1"),
        (None, "is a folder"),
        (b"A=1\n\nQUOTEBUS_NAMESPACE: good\n", "line 3: it is no setting"),
    ],
)
def test_a_dotenv_file_that_cannot_be_used_is_one_sentence(
    tmp_path: Path, content: bytes | None, says: str
) -> None:
    """With its name and the remedy, and exit code 2, whatever the command."""
    if content is None:
        (tmp_path / ".env").mkdir()
    else:
        (tmp_path / ".env").write_bytes(content)
    done = quotebus("status", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"quotebus: {tmp_path / '.env'}")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_a_dotenv_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    """Its first line counts like the others."""
    (tmp_path / ".env").write_bytes(b"\xef\xbb\xbfQUOTEBUS_HTTP=bad\n")
    done = quotebus("run", cwd=tmp_path)
    assert "QUOTEBUS_HTTP" in done.stderr


@pytest.mark.fault("P26")
def test_run_says_when_its_http_address_is_taken(server: RedisServer) -> None:
    """A port in use is one sentence with the remedy, and exit code 2."""
    done = quotebus(
        "run",
        url=server.url,
        QUOTEBUS_HTTP=f"127.0.0.1:{server.port}",
        APCA_API_KEY_ID="k",
        APCA_API_SECRET_KEY="secret",
    )
    assert done.returncode == 2
    assert "QUOTEBUS_HTTP" in done.stderr
    assert "Traceback" not in done.stderr


def test_simulate_ends_cleanly_on_sigterm() -> None:
    """It prints its two addresses, runs, and exits 0 when asked to."""
    with subprocess.Popen(
        [*QUOTEBUS, "simulate", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"ws://127.0.0.1:")
        assert process.stdout.readline().startswith(b"http://127.0.0.1:")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_simulate_names_the_tape_it_cannot_read(tmp_path: Path) -> None:
    """A missing tape is a sentence and exit code 1 or 2, never a traceback."""
    done = quotebus("simulate", "--port", "0", "--tape", str(tmp_path / "no.csv"))
    assert done.returncode in (1, 2)
    assert "no.csv" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("option", ["--port", "--rest-port"])
def test_simulate_says_which_port_is_taken_and_what_to_do(option: str) -> None:
    """Also that of the REST calls, which was not named, and a script that is not there."""
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        done = quotebus("simulate", "--port", str(port if option == "--port" else port - 1))
        assert done.returncode == 1
        assert f"port {port} of 127.0.0.1" in done.stderr
        assert f"is taken; choose another with {option}\n" in done.stderr
    done = quotebus("simulate", "--port", "0", "--script", "/nowhere.txt")
    assert done.stderr.endswith("quotebus: /nowhere.txt: No such file or directory\n")


def test_small_commands_load_nothing_heavy() -> None:
    """`symbols` and `status` answer at once because they import no Redis client, no pydantic, no event loop."""
    probe = (
        "import sys; import ingestor.cli, ingestor.commands.symbols, ingestor.commands.status; "
        "print([m for m in ('redis', 'pydantic', 'structlog', 'aiohttp', 'asyncio', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_closing_the_terminal_leaves_nothing_behind() -> None:
    """SIGHUP ends the demo like Ctrl-C, and even a killed demo takes its parts along."""
    for how in (signal.SIGHUP, signal.SIGKILL):
        with subprocess.Popen(
            [*QUOTEBUS, "demo", "--redis-port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(),
        ) as process:
            assert process.stdout is not None
            while b"live" not in process.stdout.readline():
                assert process.poll() is None
            parts = _children(process.pid)
            assert len(parts) == 3
            process.send_signal(how)
            process.wait(15)
        deadline_s = time.monotonic() + 15
        while any(_is_running(pid) for pid in parts):
            assert time.monotonic() < deadline_s, how
            time.sleep(0.05)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_missing_extra_is_one_sentence(tmp_path: Path) -> None:
    """Without the command line's or the daemon's packages, the script says which extra brings them."""
    for module, extra in (("typer", "cli"), ("structlog", "ingestor")):
        program = (
            "import sys\n"
            f"sys.modules[{module!r}] = None\n"
            "sys.argv = ['quotebus', 'run']\n"
            "from ingestor.entry import main\n"
            "main()"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False
        )
        assert done.returncode == 1
        assert f"[{extra}]" in done.stderr
        assert done.stderr.count("\n") == 1


def test_on_windows_the_daemon_says_that_it_cannot_run_there(tmp_path: Path) -> None:
    """One sentence, before anything that Windows lacks is imported; the same for the demo and the simulator."""
    for command in ("run", "demo", "simulate"):
        program = (
            "import signal, sys\n"
            "sys.platform = 'win32'\n"
            "del signal.SIGHUP\n"
            "for name in ('resource', 'fcntl', 'pwd', 'uvloop'):\n"
            "    sys.modules[name] = None\n"
            f"sys.argv = ['quotebus', {command!r}]\n"
            "from ingestor.entry import main\n"
            "main()"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False
        )
        assert done.returncode == 1
        assert done.stderr.startswith(f"quotebus: {command} needs Linux or macOS, and this is win32; ")
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("start", "said"),
    [
        ("2026-01-05", "--start '2026-01-05' does not say in which zone: write 2026-01-05T00:00:00Z for UTC"),
        ("2026-01-05T14:30", "'2026-01-05T14:30' does not say in which zone: write 2026-01-05T14:30:00Z"),
        ("2026-13-05", "--start '2026-13-05' is no time: write it as 2026-01-05T14:30:00Z"),
        ("2026-01-05T25:00:00Z", "is no time: write it as 2026-01-05T14:30:00Z"),
        ("yesterday", "yesterday"),
        ("", "start"),
        ("-1", "-1"),
    ],
)
def test_a_start_that_is_none_is_told_in_words(server: RedisServer, start: str, said: str) -> None:
    """With what to write instead."""
    done = quotebus("tail", "AAPL", f"--start={start}", "-n", "1", url=server.url)
    assert done.returncode == 2
    told = done.stderr.splitlines()[-1]
    assert said in told
    assert "Traceback" not in done.stderr
    for phrase in ("isoformat", "tzinfo", "datetime", "int()"):
        assert phrase not in told


WRONG_OPTIONS = [
    *(["run", "--config", path] for path in ("/nowhere.toml", "/", "/dev/null/x")),
    *(["simulate", "--tape", path] for path in ("/nowhere.csv", "/", "/etc/passwd")),
    *(["simulate", "--script", path] for path in ("/nowhere.txt", "/", "/etc/passwd")),
    ["simulate", "--market-hours", "never"],
    ["simulate", "--host", "no such host"],
    ["simulate", "--rate", "nan"],
    ["simulate", "--rate", "inf"],
    ["simulate", "--speed", "-1"],
    ["simulate", "--port", "70000"],
    ["demo", "--duration", "0"],
    ["demo", "--duration", "nan"],
    ["demo", "--rate", "nan"],
    ["demo", "--symbols", "0"],
    ["demo", "--redis-port", "-1"],
    ["tail", "AAPL", "--count", "0"],
    ["tail", "AAPL", "--redis-url", "nonsense"],
    ["tail", "AAPL", "--namespace", "a b"],
    ["symbols", "add", "not a symbol"],
    ["status", "--redis-url", "redis://127.0.0.1:1"],
    ["status", "--redis-url", "redis://127.0.0.1:x"],
    ["status", "--namespace", ""],
    ["nonsense"],
    ["symbols"],
    ["tail"],
]


@pytest.mark.parametrize("arguments", WRONG_OPTIONS, ids=" ".join)
def test_no_option_however_wrong_ends_in_a_traceback(arguments: list[str]) -> None:
    """It is told what is wrong, in words, and the exit code says so."""
    done = quotebus(*arguments)
    assert done.returncode in (1, 2), done
    assert "Traceback" not in done.stderr
    assert done.stderr.strip() or done.stdout.strip()


def test_tail_says_when_nobody_asked_for_a_symbol(server: RedisServer, redis: "redis_py.Redis") -> None:
    """Of a symbol that is in no set nothing may ever come, so the remedy is told at once."""
    redis.sadd(KEYS.symbols, "AAPL")
    redis.xadd(KEYS.stream("AAPL"), {"q": encode_quote(ROW)}, id="1763000004123-825050000")
    done = quotebus("tail", "aapl", "NOPE", "--start", "earliest", "-n", "1", url=server.url)
    assert done.returncode == 0
    assert done.stderr == "NOPE is not in quotes:symbols; quotebus symbols add NOPE\n"


def test_the_demo_runs_for_its_duration_and_ends_with_a_summary() -> None:
    """In a pipe: plain lines with live quotes, the commands to take part with, a summary, exit code 0.

    The seconds count from the first quote on, however long the parts took to start.
    """
    done = quotebus("demo", "--duration", "3", "--redis-port", "0")
    assert done.returncode == 0, done.stderr
    assert "SADD quotes:symbols IBM" in done.stdout
    assert re.search(r"live +12/12 live", done.stdout)
    summary = done.stdout.splitlines()[-1]
    received, stored = (int(re.search(rf"{name} (\d+)", summary)[1]) for name in ("received", "stored"))  # type: ignore[index]
    assert received == stored > 0
    assert "dropped 0" in summary
    shown_s = re.search(r"12 symbols for ([\d.]+) s", summary)
    assert shown_s is not None
    assert float(shown_s[1]) >= 2.9


def test_the_demo_on_a_terminal_is_a_table_and_takes_part_requests_until_ctrl_c() -> None:
    """On a terminal a symbol added by somebody else appears in the table; Ctrl-C ends everything with 0."""
    leader, follower = pty.openpty()
    with (
        subprocess.Popen(
            [*QUOTEBUS, "demo", "--redis-port", "0"],
            stdout=follower,
            stderr=follower,
            stdin=follower,
            env={**environment(), "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "50"},
            start_new_session=True,
        ) as process,
        os.fdopen(leader, "rb", buffering=0),
    ):
        os.close(follower)
        screen = _read_until(leader, r"quotes/s.*AAPL.*live", 60)
        port = re.search(r"redis-cli -p (\d+)", screen)
        assert port is not None
        assert quotebus("symbols", "add", "ZZZZ", url=f"redis://127.0.0.1:{port[1]}/0").returncode == 0
        _read_until(leader, r"ZZZZ\S* +\S*live", 30)
        process.send_signal(signal.SIGINT)
        rest = _read_until(leader, r"demo ended: \d+ symbols", 30)
        assert process.wait(30) == 0, rest


def _read_until(terminal: int, pattern: str, timeout_s: float) -> str:
    deadline_s = time.monotonic() + timeout_s
    text = ""
    while not re.search(pattern, re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text), re.DOTALL):
        assert time.monotonic() < deadline_s, text[-2000:]
        if select.select([terminal], [], [], 0.2)[0]:
            text += os.read(terminal, 65536).decode("utf-8", "replace")
    return text
