"""The door of the HTTP pages: whoever comes, and whatever is sent, the health check gets in."""

import asyncio
import contextlib
import logging
import random
import socket
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.watching import gate as module
from ingestor.watching.pages import RENDERED_FOR_S, Check, Sources, serve
from ingestor.watching.places import FEWEST, MOST, Places, places_within
from ingestor.watching.request_head import MAX_BYTES, HostNames, Refusal, examine

LIVEZ = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
SOON_S = 0.1
"""What a health check may take, above what the machine takes for any exchange just then."""


@dataclass
class Door:
    """The pages on a real socket, and what they told about whom they sent away."""

    port: int = 0
    told: list[dict[str, int]] = field(default_factory=list)

    @property
    def counts(self) -> Counter[str]:
        """All that was told, by reason."""
        return sum((Counter(each) for each in self.told), Counter())

    async def knock(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A new connection."""
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, request: bytes) -> bytes:
        """All that comes back, until the other side has closed."""
        reader, writer = await self.knock()
        try:
            async with asyncio.timeout(30):
                writer.write(request)
                return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.transport.abort()

    async def livez_s(self, count: int = 15) -> float:
        """How long the health check takes, half of the time; each time it is answered."""

        async def probe() -> None:
            assert (await self.ask(LIVEZ)).startswith(b"HTTP/1.1 200 OK\r\n")

        return await _median_s(probe, count)


async def _median_s(exchange: Callable[[], Awaitable[None]], count: int) -> float:
    taken_s = []
    for _ in range(count):
        began_s = time.perf_counter()
        await exchange()
        taken_s.append(time.perf_counter() - began_s)
    return statistics.median(taken_s)


async def machine_s(count: int = 15) -> float:
    """How long an exchange takes with a server that does nothing, on this machine, just now."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(100))
        writer.close()

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        bare = Door(server.sockets[0].getsockname()[1])

        async def probe() -> None:
            await bare.ask(b"x")

        return await _median_s(probe, count)


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    """The product's own pages, with little in them."""
    made = Door()
    sources = Sources(lambda: b"up 1\n", lambda: [Check("all", None)], dict, made.told.append)
    async with serve("127.0.0.1", 0, "pages.example.com", sources) as made.port:
        yield made


@contextlib.asynccontextmanager
async def crowd(door: Door, count: int, each: bytes = b"") -> AsyncIterator[None]:
    """So many connections that send this, and come again whenever they were sent away."""

    async def visitor() -> None:
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await door.knock()
                try:
                    for byte in each:
                        if reader.at_eof() or reader.exception() is not None:
                            break
                        writer.write(bytes([byte]))
                        await asyncio.sleep(0.1)  # the pace of a slow one
                    await reader.read()
                finally:
                    writer.transport.abort()
            await asyncio.sleep(0.2)  # before it comes again

    async with asyncio.TaskGroup() as visitors:
        tasks = [visitors.create_task(visitor()) for _ in range(count)]
        await asyncio.sleep(0.3)  # most of them are there
        yield
        for task in tasks:
            task.cancel()


@pytest.mark.fault("P28")
@pytest.mark.parametrize("each", [b"", LIVEZ[:-2] * 3], ids=["idle", "slow"])
async def test_two_hundred_who_take_their_time_do_not_keep_the_health_check_out(
    door: Door, each: bytes
) -> None:
    """Whether they send nothing at all, or a byte now and then; those of this machine, too."""
    async with crowd(door, 200, each):
        assert await door.livez_s() < SOON_S + 5 * await machine_s()
    assert await door.livez_s(3) < SOON_S + 5 * await machine_s()


@pytest.mark.fault("P28")
async def test_thousands_of_malformed_requests_cost_one_line(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    """No traceback for any of them; the first is told at once, the others later, with their number."""
    junk = [b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /\x00 HTTP/1.1\r\n\r\n"]
    junk += [b"GET http://x/ HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"x\r\n\r\n"]
    junk += [b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"]
    with caplog.at_level(logging.DEBUG):
        for _ in range(25):
            answers = await asyncio.gather(*(door.ask(each) for each in junk * 2))
            assert all(answer.startswith(b"HTTP/1.1 400 Bad Request\r\n") for answer in answers)
        assert await door.livez_s() < SOON_S + 5 * await machine_s()
    assert door.told == [{"malformed": 1}]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.fault("P28")
async def test_those_sent_away_are_told_once_in_a_while_with_their_number(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is lost, however many there are between two lines."""
    monkeypatch.setattr(module, "TELL_EVERY_S", 0.3)
    for _ in range(40):
        await door.ask(b"x\r\n\r\n")
        await door.ask(b"POST / HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(30):
        while door.counts != {"malformed": 40, "method_not_allowed": 40}:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert len(door.told) < 40


@pytest.mark.fault("P28")
async def test_a_silent_visitor_and_a_slow_one_end_soon(door: Door) -> None:
    """One second for the first byte, three for the whole request."""
    reader, writer = await door.knock()
    began_s = time.monotonic()
    assert await reader.read() == b""
    assert module.FIRST_BYTE_S - 0.1 < time.monotonic() - began_s < 10
    writer.close()
    reader, writer = await door.knock()
    began_s = time.monotonic()
    end = asyncio.get_running_loop().create_task(reader.read())
    async with asyncio.timeout(15):
        while not end.done():
            writer.write(b"G")
            await asyncio.wait([end], timeout=0.1)
    assert time.monotonic() - began_s > module.HEAD_S - 0.1
    # A byte that nobody has read yet makes it a reset.
    assert isinstance(end.exception(), ConnectionResetError) or end.result() == b""
    writer.close()
    assert door.told == [{"silent": 1}]


@pytest.mark.fault("P28")
@pytest.mark.parametrize(
    "request_", [b"GET /livez HTTP/1.0\r\n\r\n", LIVEZ, b"GET /metrics HTTP/1.0\r\n\r\n"]
)
async def test_a_visitor_who_has_asked_and_closes_his_half_gets_the_answer(
    door: Door, request_: bytes
) -> None:
    """In one piece with the end, or with the end behind it."""
    for pause_s in (0.0, 0.05):
        reader, writer = await door.knock()
        writer.write(request_)
        await asyncio.sleep(pause_s)  # the end comes behind, by so much
        writer.write_eof()
        async with asyncio.timeout(30):
            answer = await reader.read()
        assert answer.partition(b"\r\n")[0].endswith(b" 200 OK")
        assert answer.endswith((b"ok\n", b"up 1\n"))
        writer.transport.abort()
    reader, writer = await door.knock()
    writer.write(request_[:-2])
    writer.write_eof()
    async with asyncio.timeout(30):
        assert await reader.read() == b""
    writer.transport.abort()


@pytest.mark.fault("P28")
async def test_a_crowd_that_asks_at_once_costs_one_rendering() -> None:
    """However long one takes, the health check is behind one of them; whoever asks later gets a new one."""
    made, renderings = Door(), 0

    def render() -> bytes:
        nonlocal renderings
        renderings += 1
        time.sleep(0.05)
        return b"%d\n" % renderings

    sources = Sources(render, list, dict, made.told.append)
    request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
    async with serve("127.0.0.1", 0, "", sources) as made.port:
        for _ in range(2):
            before, began_s = renderings, time.monotonic()
            answers = await asyncio.gather(*(made.ask(request) for _ in range(180)), made.ask(LIVEZ))
            assert all(b" 200 OK\r\n" in answer for answer in answers)
            assert 1 <= renderings - before <= 1 + (time.monotonic() - began_s) / RENDERED_FOR_S
            await asyncio.sleep(RENDERED_FOR_S)  # until the next is due


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (LIVEZ, "200 OK"),
        (LIVEZ * 5, "200 OK"),
        (b"\r\n\r\n" + LIVEZ, "200 OK"),
        (b"GET /livez HTTP/1.0\r\n\r\n", "200 OK"),
        (b"HEAD /livez HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK"),
        (b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", "404 Not Found"),
        (b"GET /livez?%zz HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK"),
        (b"GET //[ HTTP/1.1\r\nHost: x\r\n\r\n", "40"),
        (b"POST /livez HTTP/1.1\r\nHost: x\r\n\r\n", "405 Method Not Allowed"),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", "413 Content Too Large"),
        (
            b"GET /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "413 Content Too Large",
        ),
        (b"GET /livez HTTP/1.1\r\nX: " + b"x" * MAX_BYTES, "431 Request Header Fields Too Large"),
        (b"GET /" + b"x" * 2 * MAX_BYTES + b" HTTP/1.1\r\n\r\n", "431 Request Header Fields Too Large"),
        (b"GET /livez HTTP/1.1\r\nHost: rebound.attacker.com\r\n\r\n", "421 Misdirected Request"),
        (b"GET /livez HTTP/1.1\r\nHost: pages.example.com:9108\r\n\r\n", "200 OK"),
    ],
)
async def test_each_request_gets_one_answer_and_none_says_by_which_program(
    door: Door, request_: bytes, status: str
) -> None:
    """Also one that comes with others behind it; the connection ends with the answer."""
    answer = await door.ask(request_)
    assert answer.startswith((b"HTTP/1.1 " + status.encode(), b"HTTP/1.0 " + status.encode()))
    assert answer.count(b"HTTP/1.") == 1
    assert b"server:" not in answer.lower()
    assert b"connection: close" in answer.lower()


async def test_what_the_gate_lets_through_the_server_behind_it_understands(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    """Random heads out of plausible pieces: an answer to each, and not one complaint in the log."""
    chance = random.Random(1)
    targets = ["/", "/livez", "//", "/%", "/%zz", "/[", "/?a=b#c", "/livez/../x", "/:80", "/@", "/\\"]
    fields = [
        "Host: x",
        "Host: ",
        "Host: [::1",
        "Connection: upgrade",
        "Upgrade: websocket",
        "Expect: 100-continue",
    ]
    fields += [
        "Content-Length: 0",
        "Content-Length: 00",
        "Content-Length: -1",
        "X:",
        "Cookie: \xe4=;",
        "Accept: \x7f",
    ]
    fields += [
        "Transfer-Encoding: identity",
        "Sec-WebSocket-Key1: x",
        "Content-Encoding: br",
        "X-\xe4: 1",
        "If: a\tb",
    ]
    heads = [
        f"{chance.choice(['GET', 'HEAD', 'OPTIONS', 'CONNECT', 'PRI'])} {chance.choice(targets)} "
        f"HTTP/1.{chance.choice('01')}\r\n"
        + "\r\n".join(chance.sample(fields, chance.randrange(5)))
        + "\r\n\r\n"
        for _ in range(400)
    ]
    with caplog.at_level(logging.DEBUG):
        for at in range(0, len(heads), 8):
            answers = await asyncio.gather(*(door.ask(head.encode("latin-1")) for head in heads[at : at + 8]))
            assert all(answer.startswith(b"HTTP/1.") for answer in answers), heads[at : at + 8]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING or record.exc_info] == []


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        *((host, True) for host in ("127.0.0.1", "127.0.0.1:9108", "[::1]:9108", "::1", "10.0.0.7:80")),
        *((host, True) for host in ("localhost", "LOCALHOST:1", "daemon:9108", "a.b.svc", "a.svc.cluster.local")),
        *((host, True) for host in ("q.internal.", "mine.example.com", "MINE.example.com:9108")),
        *((host, False) for host in ("example.com", "127.0.0.1.evil.com", "evil@127.0.0.1", "x.mine.example.com")),
        *((host, False) for host in ("localhost.evil.com:9108", ".", "[", "a b.com", "127.0.0.1.nip.io")),
    ],
)  # fmt: skip
def test_a_name_of_the_public_dns_is_not_ours_unless_it_was_chosen(host: str, is_ours: bool) -> None:
    """Addresses, names of one word and of private networks cannot be had by whoever lures a browser."""
    assert HostNames("mine.example.com, other.example.com").include(host) is is_ours
    assert HostNames("*").include(host)


@given(st.binary(max_size=300) | st.lists(st.sampled_from(
    [b"GET ", b"/", b" HTTP/1.1", b"\r\n", b"Host:", b" ", b"[", b"]", b":", b"%", b"\x00", b"\xff", b"a.b", b"1"]
)).map(b"".join))  # fmt: skip
def test_no_bytes_are_too_odd_for_an_answer(raw: bytes) -> None:
    """Whatever comes, it is let through or refused, and nothing is raised."""
    found = examine(raw + b"\r\n\r\n", HostNames(""))
    answer = found.response() if isinstance(found, Refusal) else found
    assert answer.count(b"\r\n\r\n") == 1


def test_the_places_leave_the_daemon_files_of_its_own() -> None:
    """Of 1 024 there is enough for the most; of few, visitors get few."""
    assert places_within(1024) == MOST
    assert places_within(256) == 96
    assert places_within(64) == FEWEST


PLACES, FOR_OTHERS = 8, 6


@pytest.mark.fault("P28")
@given(st.lists(st.tuples(st.sampled_from(["enter", "ask", "leave"]), st.booleans(), st.integers(0, 99))))
def test_places_are_bounded_and_some_are_always_there_for_this_machine(
    steps: list[tuple[str, bool, int]],
) -> None:
    """Nobody who has asked is put out, and nobody from outside puts out one of this machine."""
    places, inside, asked = Places[int](PLACES), dict[int, bool](), set[int]()
    for number, (what, is_local, which) in enumerate(steps * 2):
        chosen = list(inside)[which % len(inside)] if inside else None
        if what == "enter":
            evicted = places.enter(number, is_local=is_local)
            if evicted != number:
                inside[number] = is_local
            else:
                assert asked if is_local else len(inside) >= FOR_OTHERS
            if evicted is not None and evicted != number:
                assert evicted not in asked
                assert is_local or not inside[evicted]
                del inside[evicted]
        elif chosen is not None and what == "ask":
            places.has_asked(chosen)
            asked.add(chosen)
        elif chosen is not None:
            places.leave(chosen)
            del inside[chosen]
        assert len(places) == len(inside) <= PLACES
        assert sum(not local for local in inside.values()) <= FOR_OTHERS


@pytest.mark.fault("P08")
async def test_the_health_check_takes_few_turns_of_a_loop_that_has_much_to_do(door: Door) -> None:
    """To let it in, to read and to answer, however long each is: no task is made for it."""
    turns, is_over = 0, False

    def turn() -> None:
        nonlocal turns
        turns += 1
        time.sleep(0.005)
        if not is_over:
            asyncio.get_running_loop().call_soon(turn)

    def visit() -> int:
        with socket.create_connection(("127.0.0.1", door.port), 30) as visitor:
            before = turns
            visitor.sendall(LIVEZ)
            answer = b""
            while not answer.endswith(b"ok\n"):
                answer += visitor.recv(4096)
            return turns - before

    turn()
    taken = [await asyncio.to_thread(visit) for _ in range(9)]
    is_over = True
    assert statistics.median(taken) <= 5, taken


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (b"GET /livez HTTP/1.1", (b"200 OK", b"ok\n")),
        (b"GET /livez?verbose HTTP/1.0", (b"200 OK", b"ok\n")),
        (b"HEAD /livez HTTP/1.1", (b"200 OK", b"")),
        (b"GET /livezz HTTP/1.1", (b"404 Not Found", b"404: Not Found")),
    ],
)
async def test_the_health_check_is_a_page_like_any_other(
    door: Door, line: bytes, answer: tuple[bytes, bytes]
) -> None:
    """With a query, without its body for HEAD, and under no other name; the connection ends with it."""
    head, _, body = (await door.ask(line + b"\r\nHost: 127.0.0.1\r\n\r\n")).partition(b"\r\n\r\n")
    status, *fields = head.split(b"\r\n")
    assert (status.removeprefix(b"HTTP/1.1 "), body) == answer
    assert b"Connection: close" in fields
