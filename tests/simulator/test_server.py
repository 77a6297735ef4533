"""The double on loopback: real websockets, real frames, real faults."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from ingestor.feed.messages import Encoding
from simulator import (
    AccountRules,
    AckTwice,
    AlpacaSimulator,
    BadScript,
    BadSettings,
    BadTape,
    DelayAck,
    NoAck,
    NoGreeting,
    RefuseUpgrade,
    SimQuote,
    SimulatorSettings,
    write_tape,
)
from simulator.account import PATHS
from tests.simulator.client import connected, joined

NS = 1_700_000_000_123_456_789
UPGRADE = (
    b"GET /v2/iex HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def one(symbol: str = "AAPL", t_ns: int = NS) -> SimQuote:
    """A quote with a time that has nanoseconds."""
    return SimQuote(symbol, t_ns, 187.41, 300, 187.43, 200, "V", "Q", ("R",), "C")


def many(count: int, symbol: str = "AAPL") -> list[SimQuote]:
    """Quotes a nanosecond apart."""
    return [one(symbol, NS + n) for n in range(count)]


def settings(**options: Any) -> SimulatorSettings:
    """Settings, with the account's rules among them."""
    account = {name: options.pop(name) for name in list(options) if name in AccountRules.__dataclass_fields__}
    return SimulatorSettings(account=AccountRules(**account), **options)


# --- conversation ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
async def test_a_quote_as_it_is_spelt(encoding: Encoding) -> None:
    """A quote arrives with every field and every nanosecond, in the encoding that the header asked for."""
    async with AlpacaSimulator() as sim, joined(sim, "AAPL", encoding=encoding) as client:
        assert sim.send([one()]) == 1
        (quote,) = await client.frame()
        assert quote.pop("t") == (NS if encoding == "msgpack" else "2023-11-14T22:13:20.123456789Z")
        venues = {"bx": "V", "ax": "Q", "c": ["R"], "z": "C"}
        assert quote == {"T": "q", "S": "AAPL", "bp": 187.41, "bs": 300, "ap": 187.43, "as": 200, **venues}


async def test_json_is_the_default() -> None:
    """Without the header the vendor speaks JSON in text frames."""
    async with (
        AlpacaSimulator() as sim,
        connected(sim, encoding="json", headers={"Content-Type": ""}) as client,
    ):
        await client.login()


@pytest.mark.parametrize("feed", sorted(PATHS))
async def test_every_feed_has_its_path(feed: str) -> None:
    """Each path serves, and the connection knows its feed."""
    async with AlpacaSimulator() as sim, joined(sim, "FAKEPACA", feed=feed):
        assert [link.feed for link in sim.connections] == [feed]
        assert sim.url(feed).endswith(PATHS[feed])


async def test_other_paths_are_404() -> None:
    """A path that the vendor does not have is refused at the upgrade, and so is a feed switched off."""
    async with AlpacaSimulator(SimulatorSettings(feeds=("iex",))) as sim:
        with pytest.raises(InvalidStatus) as refused:
            async with connected(sim, "sip"):
                pass
        assert refused.value.response.status_code == 404
        assert [(action.kind, action.code) for action in sim.actions] == [("upgrade", 404)]


async def test_only_what_was_subscribed() -> None:
    """Each session is sent its own symbols, in order, and a frame without any is not sent."""
    async with (
        AlpacaSimulator(settings(connection_limit=2)) as sim,
        joined(sim, "AAPL", "MSFT") as first,
        joined(sim, "MSFT") as second,
    ):
        sim.send([one("AAPL"), one("NVDA"), one("MSFT")])
        sim.send([one("NVDA")])
        sim.send([one("MSFT", NS + 1)])
        assert [quote["S"] for quote in await first.frame()] == ["AAPL", "MSFT"]
        assert [quote["S"] for quote in await second.frame()] == ["MSFT"]
        assert [quote["t"] for quote in await second.frame()] == [NS + 1]


async def test_log_of_actions() -> None:
    """The log tells each request with its symbols, its outcome and its time, in order."""
    began_s = time.monotonic()
    async with AlpacaSimulator(settings(symbol_limit=2)) as sim:
        async with joined(sim, "AAPL") as client:
            answer = await client.ask({"action": "subscribe", "quotes": ["B", "C"], "trades": ["D"]})
            assert answer == {"T": "error", "code": 405, "msg": "symbol limit exceeded"}
            assert sim.connections[0].symbols == {"AAPL"}
            await client.ask({"action": "unsubscribe", "quotes": ["AAPL"]})
        await sim.wait_for(lambda: bool(sim.closed))
        assert [(a.kind, a.code, a.quotes, a.trades) for a in sim.actions] == [
            ("connect", None, (), ()),
            ("auth", None, (), ()),
            ("subscribe", None, ("AAPL",), ()),
            ("subscribe", 405, ("B", "C"), ("D",)),
            ("unsubscribe", None, ("AAPL",), ()),
            ("close", 1000, (), ()),
        ]
        times = [began_s, *(action.at_s for action in sim.actions), time.monotonic()]
        assert times == sorted(times)


async def test_auth_timeout() -> None:
    """A client that says nothing gets 404 and the end."""
    async with AlpacaSimulator(settings(auth_timeout_s=0.1)) as sim, connected(sim) as client:
        await client.control()
        assert await client.control() == {"T": "error", "code": 404, "msg": "auth timeout"}
        assert (await client.ended()).rcvd is not None


async def test_wrong_credentials() -> None:
    """402 leaves the connection open, and the right credentials are welcome then."""
    async with AlpacaSimulator(settings(key="key", secret="secret")) as sim, connected(sim) as client:
        await client.control()
        assert (await client.ask({"action": "auth", "key": "key", "secret": "no"}))["code"] == 402
        assert (await client.ask({"action": "auth", "key": "key", "secret": "secret"}))["T"] == "success"


async def test_login_by_header() -> None:
    """Credentials in the upgrade are answered right after the greeting, a second login is 403."""
    headers = {"APCA-API-KEY-ID": "key", "APCA-API-SECRET-KEY": "secret"}
    async with AlpacaSimulator(settings(key="key")) as sim, connected(sim, headers=headers) as client:
        assert [(await client.control())["msg"] for _ in range(2)] == ["connected", "authenticated"]
        assert (await client.ask({"action": "auth", "key": "key", "secret": "x"}))["code"] == 403


# --- slots ----------------------------------------------------------------------------------------------------


async def test_a_clean_close_frees_the_slot_at_once() -> None:
    """Whoever says goodbye may come back immediately, many times over."""
    async with AlpacaSimulator() as sim:
        for _ in range(20):
            async with joined(sim, "AAPL"):
                pass
        await sim.wait_for(lambda: len(sim.closed) == 20)
        assert all(gone.clean and gone.code == 1000 for gone in sim.closed)


async def test_a_drop_leaves_a_ghost() -> None:
    """After a drop the slot stays taken (406, connection open) until the ghost has gone."""
    async with AlpacaSimulator(settings(ghost_s=0.3)) as sim:
        async with joined(sim, "AAPL") as first:
            sim.drop()
            assert (await first.ended()).rcvd is None
        await sim.wait_for(lambda: bool(sim.closed))
        gone = sim.closed[0]
        assert (gone.code, gone.clean, list(gone.symbols)) == (1006, False, ["AAPL"])
        assert gone.given_code is None
        async with connected(sim) as client:
            await client.control()
            login = {"action": "auth", "key": "k", "secret": "s"}
            assert (await client.ask(login))["code"] == 406
            await sim.wait_for(lambda: sim.account.taken("iex", time.monotonic()) == 0)
            assert (await client.ask(login))["msg"] == "authenticated"


async def test_a_client_that_vanishes_leaves_a_ghost() -> None:
    """The same when it was the client whose connection broke off."""
    async with AlpacaSimulator() as sim:
        async with joined(sim, "AAPL") as client:
            client.ws.transport.abort()
        await sim.wait_for(lambda: bool(sim.closed))
        assert not sim.closed[0].clean
        assert sim.account.taken("iex", time.monotonic()) == 1
        sim.heal()
        async with joined(sim, "AAPL"):
            pass


async def test_a_drop_without_ghost() -> None:
    """On request a drop frees the slot."""
    async with AlpacaSimulator() as sim:
        async with joined(sim) as client:
            sim.drop(ghost=False)
            await client.ended()
        async with joined(sim):
            pass


# --- frames ---------------------------------------------------------------------------------------------------


async def test_frames_as_they_were_given() -> None:
    """Chosen quotes travel as one frame, or split as told; neighbours do not run together."""
    async with AlpacaSimulator() as sim, joined(sim, "AAPL") as client:
        sim.send(many(7))
        sim.send(many(7), frame_size=3)
        assert [len(await client.frame()) for _ in range(4)] == [7, 3, 3, 1]


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
async def test_arrays_grow_when_the_client_is_slow(encoding: Encoding) -> None:
    """What piles up for a slow client comes in larger frames, bounded, complete and in order."""
    options = SimulatorSettings(max_frame_items=1_000, send_buffer_bytes=4_096, compression=False)
    async with AlpacaSimulator(options) as sim, joined(sim, "AAPL", encoding=encoding) as client:
        total = 0
        # Until the kernel's buffers are full and a backlog stands, whatever their size is here.
        while sim.connections[0].backlog < 5_000:
            sim.send([one(t_ns=NS + total + n) for n in range(100)], frame_size=10, coalesce=True)
            total += 100
            if total % 10_000 == 0:
                await asyncio.sleep(0.001)
        quotes = await client.quotes(total)
        assert len(quotes) == total
        if encoding == "msgpack":
            assert [quote["t"] for quote in quotes] == list(range(NS, NS + total))
        await sim.wait_for(lambda: sim.connections[0].quotes_sent == total)
        assert sim.connections[0].largest_frame == 1_000


async def test_slow_client_is_cut() -> None:
    """Beyond the bound of the backlog the client gets 407 and the end, and its slot is free."""
    options = SimulatorSettings(
        max_backlog=2_000, frame_size=100, max_frame_items=100, send_buffer_bytes=4_096, compression=False
    )
    async with AlpacaSimulator(options) as sim:
        async with joined(sim, "AAPL", max_queue=1) as client:
            client.ws.transport.pause_reading()
            while not sim.closed and sim.connections[0].receives:
                sim.send(many(100))
                await asyncio.sleep(0)
            await sim.wait_for(lambda: bool(sim.closed))
        async with joined(sim, "AAPL"):
            pass


async def test_raw_frames() -> None:
    """A test may send any bytes, as binary or as text."""
    async with AlpacaSimulator() as sim, joined(sim) as client:
        sim.send_raw(b"\x00\x01")
        sim.send_raw("text")
        assert [await client.ws.recv() for _ in range(2)] == [b"\x00\x01", "text"]


async def test_bytes_between_frames() -> None:
    """A test may send what is no frame at all, and the client sees exactly that."""
    async with AlpacaSimulator() as sim, joined(sim) as client:
        sim.send_wire(b"\x82\x02hi")
        assert await client.ws.recv() == b"hi"
        sim.send_wire(b"\x83\x00")
        assert (await client.ended()).rcvd is None


# --- faults ---------------------------------------------------------------------------------------------------


async def test_close_with_a_code() -> None:
    """A proper close reaches the client with its code, and frees the slot."""
    async with AlpacaSimulator() as sim:
        async with joined(sim) as client:
            sim.close(1012)
            end = await client.ended()
            assert end.rcvd is not None
            assert end.rcvd.code == 1012
        await sim.wait_for(lambda: bool(sim.closed))
        assert sim.closed[0].given_code == 1012
        assert "#1 1012" in sim.describe()
        async with joined(sim):
            pass


async def test_leaving_closes_properly() -> None:
    """A simulator that ends says goodbye to its clients, with 1001."""
    async with AlpacaSimulator() as sim, joined(sim) as client:
        async with asyncio.timeout(5):
            await sim.__aexit__(None, None, None)
        end = await client.ended()
        assert end.rcvd is not None
        assert end.rcvd.code == 1001


async def test_mute() -> None:
    """While muted, data is lost and requests are answered; then it flows again."""
    async with AlpacaSimulator() as sim, joined(sim, "AAPL") as client:
        sim.mute()
        assert sim.send([one()]) == 0
        assert await client.subscribe("MSFT") == ["AAPL", "MSFT"]
        sim.mute(on=False)
        sim.send([one("MSFT")])
        assert [quote["S"] for quote in await client.frame()] == ["MSFT"]
        sim.mute(for_s=0.05)
        await sim.wait_for(lambda: sim.send([one("AAPL")]) == 1)
        assert (await client.frame())[0]["S"] == "AAPL"


async def test_half_open() -> None:
    """Nothing is answered, not even pings, and nothing is closed; the slot is a ghost's."""
    async with AlpacaSimulator(settings(ghost_s=0.2)) as sim, joined(sim, "AAPL") as client:
        sim.half_open()
        sim.send([one()])
        pong = await client.ws.ping()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.15):
                await asyncio.shield(pong)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.15):
                await client.ws.recv()
        assert client.ws.close_code is None
        await sim.wait_for(lambda: sim.account.taken("iex", time.monotonic()) == 0)
        async with joined(sim, "AAPL"):
            assert len(sim.connections) == 2
        client.ws.transport.abort()


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
async def test_garbage(encoding: Encoding) -> None:
    """Garbage is no message in either encoding, and the connection goes on."""
    async with AlpacaSimulator() as sim, joined(sim, "AAPL", encoding=encoding) as client:
        sim.garbage()
        with pytest.raises(ValueError):  # noqa: PT011  two decoders, two errors
            await client.frame()
        sim.send([one()])
        assert len(await client.frame()) == 1


async def test_half_a_frame() -> None:
    """What was sent before it arrives; the frame itself does not, and the slot is taken or free as was asked."""
    for ghost in (True, False):
        async with AlpacaSimulator(settings(ghost_s=60.0)) as sim, joined(sim, "AAPL") as client:
            sim.send([one()])
            sim.half_frame([one(), one()], ghost=ghost)
            assert len(await client.frame()) == 1
            end = await client.ended()
            assert end.rcvd is None
            await sim.wait_for(lambda: bool(sim.closed))
            assert sim.account.taken("iex", time.monotonic()) == ghost


async def test_a_compressed_frame() -> None:
    """To a client that agreed it is so many zeros, and to one that did not a breach of the protocol."""
    async with AlpacaSimulator() as sim, joined(sim) as client:
        sim.compressed(100_000)
        assert await client.ws.recv() == bytes(100_000)
    async with AlpacaSimulator(SimulatorSettings(compression=False)) as sim, joined(sim) as client:
        sim.compressed(100_000)
        end = await client.ended()
        assert end.sent is not None
        assert end.sent.code == 1002


async def test_errors_out_of_the_blue() -> None:
    """Any code with any words; 407 ends the connection, the others do not."""
    async with AlpacaSimulator() as sim, joined(sim) as client:
        sim.error(500)
        sim.error(499, "made up")
        assert await client.control() == {"T": "error", "code": 500, "msg": "internal error"}
        assert await client.control() == {"T": "error", "code": 499, "msg": "made up"}
        sim.error(407)
        assert (await client.control())["code"] == 407
        end = await client.ended()
        assert end.rcvd is not None


async def test_upgrade_429() -> None:
    """Upgrades are refused with status and header as often as told."""
    async with AlpacaSimulator() as sim:
        sim.refuse_upgrade(429, [("Retry-After", "3")], times=2)
        for _ in range(2):
            with pytest.raises(InvalidStatus) as refused:
                async with connected(sim):
                    pass
            assert refused.value.response.status_code == 429
            assert refused.value.response.headers["Retry-After"] == "3"
        async with joined(sim):
            pass


async def test_too_many_connections() -> None:
    """The simulator itself is bounded: beyond its number of connections the upgrade is 503."""
    async with AlpacaSimulator(SimulatorSettings(max_connections=1)) as sim, joined(sim):
        with pytest.raises(InvalidStatus) as refused:
            async with connected(sim):
                pass
        assert refused.value.response.status_code == 503


async def test_refused_login_then_welcome() -> None:
    """The next logins can be refused with any code, on a connection that stays."""
    async with AlpacaSimulator() as sim, connected(sim) as client:
        sim.refuse(406, times=2)
        await client.control()
        login = {"action": "auth", "key": "k", "secret": "s"}
        assert [(await client.ask(login)).get("code") for _ in range(3)] == [406, 406, None]


async def test_acknowledgements_late_and_never() -> None:
    """A late acknowledgement lets data pass before it, a missing one is missing."""
    async with AlpacaSimulator() as sim, joined(sim) as client:
        sim.arm(DelayAck(0.2), times=1)
        asked_s = time.monotonic()
        await client.send({"action": "subscribe", "quotes": ["AAPL"]})
        await sim.wait_for(lambda: sim.symbols == {"AAPL"})
        sim.send([one()])
        assert (await client.control())["T"] == "q"
        assert (await client.control())["quotes"] == ["AAPL"]
        assert time.monotonic() - asked_s >= 0.2
        sim.arm(NoAck(), times=1)
        await client.send({"action": "subscribe", "quotes": ["MSFT"]})
        assert await client.subscribe("NVDA") == ["AAPL", "MSFT", "NVDA"]


async def test_an_acknowledgement_that_comes_twice() -> None:
    """The same words again, once."""
    async with AlpacaSimulator() as sim, joined(sim) as client:
        sim.arm(AckTwice(), times=1)
        assert await client.subscribe("AAPL") == ["AAPL"]
        assert (await client.control())["quotes"] == ["AAPL"]
        assert await client.subscribe("MSFT") == ["AAPL", "MSFT"]


async def test_an_upgrade_that_becomes_a_page_or_a_way_elsewhere() -> None:
    """Status, headers and text are what the test wants."""
    async with AlpacaSimulator() as sim:
        sim.arm(RefuseUpgrade(200, (("Content-Type", "text/html"),), "<h1>Welcome</h1>"), times=1)
        sim.arm(RefuseUpgrade(302, (("Location", "ws://127.0.0.1:1/"),)), times=1)
        answers = []
        for _ in range(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
            writer.write(UPGRADE)
            answers.append(await reader.read())
            writer.close()
    assert answers[0].startswith(b"HTTP/1.1 200 ")
    assert b"Content-Type: text/html" in answers[0]
    assert answers[0].endswith(b"<h1>Welcome</h1>")
    assert answers[1].startswith(b"HTTP/1.1 302 ")
    assert b"Location: ws://127.0.0.1:1/" in answers[1]


async def test_no_greeting() -> None:
    """The vendor may open the connection and say nothing."""
    async with AlpacaSimulator() as sim:
        sim.arm(NoGreeting(), times=1)
        async with connected(sim) as client:
            answer = await client.ask({"action": "auth", "key": "k", "secret": "s"})
            assert answer["msg"] == "authenticated"


async def test_scripted_day(tmp_path: Path) -> None:
    """A script's rules wait from the start, its events count from the first login."""
    script = tmp_path / "bad.day"
    script.write_text(
        "on connect refuse 406 x1\non subscribe partial-ack 1 x1\nat 100ms error 500\nat 200ms drop no-ghost\n"
    )
    async with AlpacaSimulator(SimulatorSettings(script=script)) as sim:
        async with connected(sim) as client:
            await client.control()
            login = {"action": "auth", "key": "k", "secret": "s"}
            assert (await client.ask(login))["code"] == 406
            assert (await client.ask(login))["T"] == "success"
            assert await client.subscribe("A", "B") == ["A"]
            assert (await client.control())["code"] == 500
            assert (await client.ended()).rcvd is None
        sim.run_script("every 20ms error 500")
        async with joined(sim) as client:
            assert [(await client.control())["code"] for _ in range(3)] == [500, 500, 500]


async def test_bad_files_are_told_at_the_start(tmp_path: Path) -> None:
    """A script or a tape that cannot be read stops the simulator before it listens."""
    bad = tmp_path / "AAPL-x.csv"
    bad.write_text("explode\n")
    with pytest.raises(BadScript, match=r"AAPL-x\.csv, line 1"):
        await AlpacaSimulator(SimulatorSettings(script=bad)).__aenter__()
    binary = tmp_path / "binary.day"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(BadScript, match="not a text"):
        await AlpacaSimulator(SimulatorSettings(script=binary)).__aenter__()
    with pytest.raises(BadTape, match=r"AAPL-x\.csv, line 1"):
        await AlpacaSimulator(SimulatorSettings(tape=bad)).__aenter__()


@pytest.mark.parametrize(
    "options",
    [
        {"feeds": ()},
        {"feeds": ("nyse",)},
        {"port": 70_000},
        {"rate": -1.0},
        {"tape": Path("x"), "tape_speed": None, "tape_redate": True},
        {"tape_loop": True},
        {"frame_size": 0},
        {"symbols": ("AAPL", "no symbol")},
        {"symbol_count": -1},
        {"coalesce_ms": 0.0},
    ],
)
def test_contradictory_settings(options: dict[str, Any]) -> None:
    """Choices that cannot be honoured are refused on the spot."""
    with pytest.raises(BadSettings):
        SimulatorSettings(**options)


async def test_the_callers_own_error_comes_through() -> None:
    """What fails inside the context is raised as it is, not wrapped in a group."""
    with pytest.raises(KeyError, match="mine"):
        async with AlpacaSimulator():
            raise KeyError("mine")


async def test_waiting_has_an_end() -> None:
    """A wait that is not fulfilled says what the state of affairs is."""
    async with AlpacaSimulator() as sim, joined(sim, "AAPL"):
        with pytest.raises(TimeoutError, match="#1 iex in, 1 symbols"):
            await sim.wait_for(lambda: False, timeout_s=0.05)


# --- sources --------------------------------------------------------------------------------------------------


async def test_market_at_a_rate() -> None:
    """The synthetic market quotes the subscribed symbols at about its rate, in the order of time."""
    async with (
        AlpacaSimulator(SimulatorSettings(rate=2_000, symbol_count=20)) as sim,
        joined(sim, "AAPL", "MSFT", "UNKNOWN") as client,
    ):
        before_ns = time.time_ns()
        quotes = await client.quotes(600)
        took_s = (time.time_ns() - before_ns) / 1e9
        assert {quote["S"] for quote in quotes} == {"AAPL", "MSFT", "UNKNOWN"}
        times = [quote["t"] for quote in quotes]
        assert times == sorted(times)
        assert abs(times[-1] - time.time_ns()) < 2e9
        assert 0.15 < took_s < 3.0
        sim.rate = 0
        sim.burst(5_000)
        await client.quotes(5_000)


async def test_wildcard_gets_the_whole_market() -> None:
    """The wildcard is sent every symbol of the market, and not the test feed's."""
    async with (
        AlpacaSimulator(SimulatorSettings(symbols=("AAPL", "MSFT", "NVDA"))) as sim,
        joined(sim, "*") as client,
    ):
        sim.burst(500)
        assert {quote["S"] for quote in await client.quotes(500)} == {"AAPL", "MSFT", "NVDA"}


async def test_test_feed() -> None:
    """The test feed quotes its one symbol and nothing else."""
    async with (
        AlpacaSimulator(SimulatorSettings(rate=500)) as sim,
        joined(sim, "FAKEPACA", "AAPL", feed="test") as client,
    ):
        assert {quote["S"] for quote in await client.quotes(50)} == {"FAKEPACA"}


def odd_tape(path: Path) -> list[SimQuote]:
    """A tape with repeats, ties and a late row, written and returned."""
    rows = [SimQuote("AMZN", NS + n * 1_000, 200.0 + n % 7, 100, 201.0 + n % 5, 200) for n in range(2_000)]
    rows[500:500] = [rows[499]] * 3
    rows[900:900] = [SimQuote("AMZN", rows[899].t_ns, 1.0, 1, 2.0, n) for n in range(5)]
    rows[1200:1200] = [SimQuote("AMZN", rows[10].t_ns, 0.0, 0, 2.0, 1)]
    write_tape(path, rows)
    return rows


@pytest.mark.parametrize("speed", [None, 0.0, 1.0, 0.01])
async def test_tape_arrives_whole(tmp_path: Path, speed: float | None) -> None:
    """Ties, exact repeats and late rows all arrive, once each and in the tape's order, at any speed."""
    path = tmp_path / "AMZN-odd.csv.gz"
    rows = odd_tape(path)
    async with AlpacaSimulator(SimulatorSettings(tape=path, tape_speed=speed)) as sim, joined(sim) as client:
        assert not sim.tape_done.is_set()
        await client.subscribe("AMZN")
        quotes = await client.quotes(len(rows))
        assert [(q["t"], q["bp"], q["bs"], q["ap"], q["as"]) for q in quotes] == [
            (row.t_ns, row.bid_price, row.bid_size, row.ask_price, row.ask_size) for row in rows
        ]
        async with asyncio.timeout(5):
            await sim.tape_done.wait()
        assert sim.tape_sent == len(rows)
        assert sim.tape_error is None


async def test_tape_without_pace_waits_for_its_readers(tmp_path: Path) -> None:
    """Flat out, nothing is lost to a reconnect's pause, and a slow reader is not cut."""
    path = tmp_path / "AMZN-long.csv"
    write_tape(path, many(30_000, "AMZN"))
    options = SimulatorSettings(tape=path, tape_speed=None, max_backlog=2_000, max_frame_items=100)
    async with AlpacaSimulator(options) as sim:
        async with joined(sim, "AMZN", max_queue=1) as client:
            await client.quotes(100)
        await sim.wait_for(lambda: bool(sim.closed))
        handed_over = sim.tape_sent
        assert handed_over < 30_000
        async with joined(sim, "AMZN") as client:
            assert len(await client.quotes(30_000 - handed_over)) == 30_000 - handed_over


async def test_tape_dated_to_now(tmp_path: Path) -> None:
    """On request a tape of long ago is dated to the moment it is played."""
    path = tmp_path / "AMZN-old.csv"
    write_tape(path, many(10, "AMZN"))
    async with (
        AlpacaSimulator(SimulatorSettings(tape=path, tape_redate=True, tape_loop=True)) as sim,
        joined(sim, "AMZN") as client,
    ):
        quotes = await client.quotes(30)
        assert all(abs(quote["t"] - time.time_ns()) < 5e9 for quote in quotes)


async def test_tape_that_breaks_off(tmp_path: Path) -> None:
    """A tape that turns bad in the middle is sent up to there, and the reason is kept."""
    path = tmp_path / "AMZN-torn.csv"
    write_tape(path, many(10, "AMZN"))
    with path.open("a") as file:
        file.write("oops\n")
    async with AlpacaSimulator(SimulatorSettings(tape=path, tape_speed=None)) as sim, joined(sim, "AMZN"):
        async with asyncio.timeout(5):
            await sim.tape_done.wait()
        assert sim.tape_error is not None
        assert sim.tape_error.line == 12


async def test_every_event_of_a_script_strikes() -> None:
    """Each kind of event does on a live connection what its line says."""
    async with AlpacaSimulator() as sim:
        async with joined(sim, "AAPL") as client:
            sim.run_script("at 0s error 500\nat 20ms garbage\nat 40ms burst 10 in 0s\nat 60ms rate 500")
            assert (await client.control())["code"] == 500
            async with asyncio.timeout(5):
                assert await client.ws.recv() == b'\xc1\xff{"T":'
            assert len(await client.quotes(100)) >= 100
            sim.run_script("at 0s mute\nat 50ms unmute")
            await client.quotes(20)
            sim.refuse(406, times=None)
            sim.run_script("at 0s heal\nat 50ms close 1012")
            end = await client.ended()
            assert end.rcvd is not None
            assert end.rcvd.code == 1012
        async with joined(sim, "AAPL") as client:
            sim.run_script("at 0s half-open")
            await sim.wait_for(lambda: sim.connections[0].severed)
            client.ws.transport.abort()
        sim.heal()
        async with joined(sim, "AAPL") as client:
            sim.run_script("at 0s compressed 10\nat 20ms half-frame no-ghost")
            assert await client.ws.recv() == bytes(10)
            assert (await client.ended()).rcvd is None


async def test_a_client_that_does_not_answer_pings_is_dropped() -> None:
    """The vendor pings, and gives up on whoever stays silent."""
    options = SimulatorSettings(ping_interval_s=0.05, ping_timeout_s=0.1)
    async with AlpacaSimulator(options) as sim, joined(sim, "AAPL") as client:
        client.ws.transport.pause_reading()
        await sim.wait_for(lambda: bool(sim.closed))
        assert not sim.closed[0].clean
