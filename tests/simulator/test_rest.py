"""REST as any HTTP client sees it: the allowance, paging, and everything that can go wrong with a call."""

import asyncio
import calendar
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientConnectionError, ClientPayloadError, ClientSession, ClientTimeout
from hypothesis import given
from hypothesis import strategies as st

from simulator import (
    AccountRules,
    AlpacaSimulator,
    BadSettings,
    CutRest,
    HangRest,
    RefuseRest,
    SimQuote,
    SimulatorSettings,
    SlowRest,
    write_tape,
)
from simulator.frames import Batch
from simulator.rest.allowance import Allowance
from simulator.rest.answers import RestRequest
from simulator.rest.asking import Range, range_of
from simulator.rest.clock import clock
from simulator.rest.desk import Desk
from simulator.rest.history import History, page
from simulator.rest.past import Past
from simulator.rest.record import Record
from tests.simulator.client import joined

KEYS = {"APCA-API-KEY-ID": "key", "APCA-API-SECRET-KEY": "secret"}
LATEST = "/v2/stocks/AAPL/quotes/latest"
NOW_NS = 1_750_000_000_000_000_000
MINUTE_NS = 60_000_000_000


@asynccontextmanager
async def calling(sim: AlpacaSimulator) -> AsyncIterator[ClientSession]:
    """A client with good keys."""
    async with ClientSession(sim.rest_url, headers=KEYS, timeout=ClientTimeout(total=30)) as client:
        yield client


def rules(**options: Any) -> SimulatorSettings:
    """Settings with these rules of the account."""
    return SimulatorSettings(account=AccountRules(**options))


# --- answers --------------------------------------------------------------------------------------------------


async def test_a_single_symbol_has_its_own_paths() -> None:
    """Quotes, bars and the newest quote of one symbol come without the level of symbols."""
    span = {"start": "2025-03-03T15:00:00Z", "end": "2025-03-03T15:00:59Z", "limit": "2"}
    async with AlpacaSimulator() as sim, calling(sim) as client:
        sim.send([SimQuote("AAPL", NOW_NS, 1.5, 1, 2.5, 2)])
        async with client.get(LATEST) as answer:
            assert answer.content_type == "application/json"
            body = await answer.json()
        assert (body["symbol"], body["quote"]["bp"]) == ("AAPL", 1.5)
        async with client.get("/v2/stocks/AAPL/quotes", params=span) as answer:
            body = await answer.json()
        assert (body["symbol"], len(body["quotes"])) == ("AAPL", 2)
        assert isinstance(body["next_page_token"], str)
        async with client.get("/v2/stocks/AAPL/bars", params={**span, "timeframe": "1Min"}) as answer:
            body = await answer.json()
        assert body["next_page_token"] is None
        assert [bar["t"] for bar in body["bars"]] == ["2025-03-03T15:00:00Z"]


@pytest.mark.parametrize(
    ("path", "query", "status", "reason"),
    [
        ("quotes", {}, 400, "symbols is required"),
        ("quotes", {"symbols": "AAPL", "limit": "0"}, 400, "invalid limit"),
        ("quotes", {"symbols": "AAPL", "limit": "10001"}, 400, "invalid limit"),
        ("quotes", {"symbols": "AAPL", "sort": "up"}, 400, "invalid sort"),
        ("quotes", {"symbols": "AAPL", "start": "yesterday"}, 400, "invalid start"),
        ("quotes", {"symbols": "AAPL", "start": "2025-02-02", "end": "2025-01-01"}, 400, "before start"),
        ("quotes", {"symbols": "AAPL", "page_token": "xyz"}, 400, "invalid page_token"),
        ("quotes", {"symbols": "AAPL", "feed": "moon"}, 400, "invalid feed"),
        ("quotes", {"symbols": "AAPL,HALT"}, 400, "invalid symbol: HALT"),
        ("bars", {"symbols": "AAPL"}, 400, "timeframe is required"),
        ("bars", {"symbols": "AAPL", "timeframe": "61Min"}, 400, "invalid timeframe"),
        ("dreams", {"symbols": "AAPL"}, 404, "endpoint not found"),
    ],
)
def test_unsound_requests_are_refused(path: str, query: Mapping[str, str], status: int, reason: str) -> None:
    """Each mistake has its status and a message that names it."""
    answer = ask(desk(refused_symbols=frozenset({"HALT"})), f"/v2/stocks/{path}", query)
    assert answer.status == status
    assert reason in answer.body.decode()


def desk(record: Record | None = None, **options: Any) -> Desk:
    """A desk without a socket."""
    history = History(record or Record(1_000))
    return Desk(AccountRules(**options), history, lambda: ("AAPL",), lambda *_: None)


def ask(at: Desk, path: str, query: Mapping[str, str], now_ns: int = NOW_NS) -> Any:
    """What this call is answered."""
    headers = {name.lower(): value for name, value in KEYS.items()}
    return at.answer(RestRequest("GET", path, query, headers), now_ns)


@given(
    st.text(max_size=30),
    st.dictionaries(
        st.sampled_from(["symbols", "start", "end", "limit", "sort", "page_token", "feed", "timeframe"]),
        st.text(max_size=30) | st.sampled_from(["AAPL", "2025-03-03", "1Min", "1Month", "9999-12-31", "5"]),
    ),
    st.sampled_from(["/v2/stocks/quotes", "/v2/stocks/bars", "/v2/stocks/quotes/latest", "/v2/assets/", "/"]),
)
def test_any_request_has_an_answer(tail: str, query: dict[str, str], path: str) -> None:
    """No query makes the desk fail in any other way than with a refusal."""
    at = desk()
    for each in (path, path + tail):
        assert ask(at, each, query).status in (200, 400, 403, 404)


def test_a_quote_that_never_was() -> None:
    """When there is no quote, the newest one of many is left out, and of one alone it is a 404."""
    at = desk()
    early_ns = 0
    assert ask(at, "/v2/stocks/quotes/latest", {"symbols": "AAPL"}, early_ns).body == b'{"quotes":{}}'
    assert ask(at, LATEST, {}, early_ns).status == 404


async def test_a_tape_with_its_own_times_ends_the_past(tmp_path: Path) -> None:
    """What was before the first row of a recorded day is older than it, and its rows are the history."""
    rows = [SimQuote("AAPL", NOW_NS + n, 1.0 + n, 1, 2.0 + n, 1) for n in range(3)]
    write_tape(tmp_path / "AAPL-day.csv", rows)
    async with (
        AlpacaSimulator(SimulatorSettings(tape=tmp_path / "AAPL-day.csv", tape_speed=0)) as sim,
        calling(sim) as client,
    ):
        async with client.get(LATEST) as answer:
            before = (await answer.json())["quote"]["t"]
        assert stamp(NOW_NS - 10 * 10**9) < before < stamp(NOW_NS)
        async with joined(sim, "AAPL") as listener:
            await listener.quotes(3)
        span = {"start": stamp(NOW_NS - 15 * 10**9), "end": stamp(NOW_NS + 10**9)}
        async with client.get("/v2/stocks/AAPL/quotes", params=span) as answer:
            body = await answer.json()
        assert [quote["bp"] for quote in body["quotes"][-3:]] == [1.0, 2.0, 3.0]
        assert len(body["quotes"]) == 6
        assert body["quotes"][2]["t"] == before


@pytest.mark.parametrize(
    ("at", "is_open", "next_open", "next_close"),
    [
        ("2025-11-26T14:29:59", False, "2025-11-26T09:30", "2025-11-26T16:00"),
        ("2025-11-26T14:30:00", True, "2025-11-28T09:30", "2025-11-26T16:00"),
        ("2025-11-26T21:00:00", False, "2025-11-28T09:30", "2025-11-28T13:00"),
        ("2025-11-28T18:00:00", False, "2025-12-01T09:30", "2025-12-01T16:00"),
        ("2025-07-03T17:00:00", False, "2025-07-07T09:30", "2025-07-07T16:00"),
    ],
)
def test_the_clock_of_regular_hours(at: str, is_open: bool, next_open: str, next_close: str) -> None:
    """Open from the first second to the last but one, over holidays, half days and weekends, in New York's time."""
    now_ns = calendar.timegm(time.strptime(at, "%Y-%m-%dT%H:%M:%S")) * 10**9 + 5
    told = clock(now_ns, always_open=False)
    assert told["is_open"] == is_open
    assert str(told["next_open"]).startswith(next_open)
    assert str(told["next_close"]).startswith(next_close)
    assert ".000000005-0" in str(told["timestamp"])
    always = clock(now_ns, always_open=True)
    assert always["is_open"]
    assert always["next_close"] == told["next_close"]
    assert str(always["next_close"]) < str(always["next_open"])


# --- paging ---------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.sampled_from("AB"), st.integers(0, 40)), max_size=60),
    st.integers(1, 12),
    st.booleans(),
    st.integers(-60, 20),
    st.integers(20, 80),
)
def test_the_pages_are_the_range(
    rows: list[tuple[str, int]], limit: int, newest_first: bool, start_s: int, end_s: int
) -> None:
    """Pages of any size, laid end to end, are the whole range, ties included, in order, each full but the last."""
    record = Record(1_000)
    for symbol, at in rows:
        # Thirds of seconds: the past's quotes and ties of the stream's both occur.
        record.note(
            *batch([SimQuote(symbol, NOW_NS + at // 3 * 1_000_000_000, 1.0, record.count + 1, 2.0, 1)])
        )
    history = History(record)
    span = NOW_NS + start_s * 10**9, NOW_NS + end_s * 10**9
    now_ns = NOW_NS + 100 * 10**9

    def read(symbol: str, part: Range) -> Any:
        return history.quotes(symbol, part.start_ns, part.end_ns, now_ns, newest_first=part.newest_first)

    whole = [quote for symbol in "AB" for quote in read(symbol, Range(("A",), *span, 9, newest_first, None))]
    query = {"start": stamp(span[0]), "end": stamp(span[1]), "limit": str(limit)}
    query["sort"] = "desc" if newest_first else "asc"
    laid: list[SimQuote] = []
    while True:
        found, token = page(range_of(query, ("A", "B"), now_ns), read, lambda quote: quote.t_ns)
        items = [quote for quotes in found.values() for quote in quotes]
        laid += items
        assert len(laid) <= len(whole)
        if token is None:
            break
        assert len(items) == limit
        query["page_token"] = token
    assert laid == whole
    assert [q.t_ns for q in whole if q.symbol == "A"] == sorted(
        (q.t_ns for q in whole if q.symbol == "A"), reverse=newest_first
    )


@given(st.integers(0, 10**6), st.integers(1, 400), st.integers(0, 400))
def test_the_past_is_the_same_in_any_piece(at_s: int, length_s: int, cut_s: int) -> None:
    """Two pieces are the whole, backwards as well, and a span's summary is that of its quotes."""
    start = at_s * 5 * 10**9
    cut, end = start + min(cut_s, length_s) * 10**9, start + length_s * 10**9
    past = Past("AAPL", 3)
    whole = list(past.quotes(start, end - 1))
    assert [*past.quotes(start, cut - 1), *past.quotes(cut, end - 1)] == whole
    assert list(past.backwards(start, end - 1)) == whole[::-1]
    span = past.span(start, end)
    assert (span.number if span else 0) == len(whole)
    if span is not None:
        mids = [round((quote.bid_price + quote.ask_price) * 100) for quote in whole]
        assert (span.first, span.high, span.low, span.last) == (mids[0], max(mids), min(mids), mids[-1])
        assert span.total == sum(mids)
        assert span.shares == sum(quote.bid_size + quote.ask_size for quote in whole)


def test_the_record_is_bounded_and_says_so() -> None:
    """The oldest quotes are forgotten and counted; a quiet symbol's newest one is kept."""
    record = Record(10)
    record.note(*batch([SimQuote("QUIET", NOW_NS, 1.0, 1, 2.0, 1)]))
    for n in range(50):
        record.note(*batch([SimQuote("AAPL", NOW_NS + n, 1.0, 1, 2.0, 1)]))
    assert (record.count, record.forgotten) == (10, 41)
    assert len(record.quotes("AAPL", 0, 2 * NOW_NS)) == 10
    assert record.quotes("QUIET", 0, 2 * NOW_NS) == []
    quiet = record.newest("QUIET")
    assert quiet is not None
    assert quiet.t_ns == NOW_NS


def batch(quotes: list[SimQuote]) -> tuple[frozenset[str], list[SimQuote]]:
    """What the stream tells the record."""
    return Batch(quotes).symbols, quotes


def stamp(time_ns: int) -> str:
    """RFC 3339 with nanoseconds."""
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time_ns // 10**9))
    return f"{at}.{time_ns % 10**9:09d}Z"


# --- allowance ------------------------------------------------------------------------------------------------


async def test_calls_beyond_the_minute_are_refused() -> None:
    """Every answer tells what is left; the call too many gets 429 and the second at which calls count anew."""
    async with AlpacaSimulator(rules(calls_per_minute=3)) as sim, calling(sim) as client:
        left: list[tuple[int, str]] = []
        for _ in range(4):
            async with client.get("/v2/clock") as answer:
                left.append((answer.status, answer.headers["X-RateLimit-Remaining"]))
                reset_s = int(answer.headers["X-RateLimit-Reset"])
                body = await answer.json()
        assert left == [(200, "2"), (200, "1"), (200, "0"), (429, "0")]
        assert body == {"code": 42910000, "message": "rate limit exceeded"}
        assert answer.headers["X-RateLimit-Limit"] == "3"
        assert 0 < reset_s - time.time_ns() / 1e9 <= 61
        async with client.get(LATEST) as answer:
            assert await answer.json() == {"message": "too many requests."}
        async with client.get("/v2/clock", headers={"APCA-API-KEY-ID": "other"}) as answer:
            assert answer.status == 200


def test_a_minute_ends() -> None:
    """A key has its calls again when its own minute is over, and others are not touched."""
    allowance = Allowance(2)
    assert [allowance.spend("a", NOW_NS + n) for n in range(3)] == [True, True, False]
    assert allowance.spend("b", NOW_NS)
    assert allowance.headers("a", NOW_NS)["X-RateLimit-Reset"] == str((NOW_NS + MINUTE_NS) // 10**9)
    assert not allowance.spend("a", NOW_NS + MINUTE_NS - 1)
    assert allowance.spend("a", NOW_NS + MINUTE_NS)
    assert allowance.headers("a", NOW_NS + MINUTE_NS)["X-RateLimit-Remaining"] == "1"


# --- faults ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"), [(500, "application/json"), (502, "text/html"), (504, "text/html")]
)
async def test_a_broken_host(status: int, kind: str) -> None:
    """The next calls get this status, a gateway's as a page of HTML, and then all is well."""
    async with AlpacaSimulator() as sim, calling(sim) as client:
        sim.run_script(f"on rest status {status} x2")
        for expected in (status, status, 200):
            async with client.get(LATEST) as answer:
                assert answer.status == expected
                assert expected == 200 or answer.content_type == kind
                assert "X-RateLimit-Remaining" in answer.headers
        assert [call.status for call in sim.rest_calls] == [status, status, 200]
        assert sim.rest_calls[0].fault == RefuseRest(status)
        assert sim.rest_calls[0].key == "key"


async def test_a_429_says_until_when() -> None:
    """A 429 on request names the second of its reset."""
    async with AlpacaSimulator() as sim, calling(sim) as client:
        sim.refuse_rest(429, reset_s=5)
        async with client.get(LATEST) as answer:
            assert (answer.status, answer.headers["X-RateLimit-Remaining"]) == (429, "0")
            assert 0 < int(answer.headers["X-RateLimit-Reset"]) - time.time_ns() / 1e9 <= 6


async def test_a_cut_answer() -> None:
    """Half of the body arrives, then the connection ends; the next call finds a new one."""
    async with AlpacaSimulator() as sim, calling(sim) as client:
        sim.arm(CutRest(), times=1)
        with pytest.raises(ClientPayloadError):
            async with client.get(LATEST) as answer:
                await answer.read()
        async with client.get(LATEST) as answer:
            assert answer.status == 200


async def test_a_dripping_answer() -> None:
    """The body comes in small pieces, and whole in the end."""
    async with AlpacaSimulator() as sim, calling(sim) as client:
        sim.arm(SlowRest(0.5), times=1)
        began_s = time.monotonic()
        async with client.get(LATEST) as answer:
            assert (await answer.json())["symbol"] == "AAPL"
        assert time.monotonic() - began_s >= 0.4


async def test_a_hanging_call() -> None:
    """Nothing comes until the time is up, then the answer; meanwhile the call is in the log."""
    async with AlpacaSimulator() as sim, calling(sim) as client, asyncio.TaskGroup() as group:
        sim.arm(HangRest(0.5), times=1)
        began_s = time.monotonic()
        hanging = group.create_task(client.get(LATEST))
        await sim.wait_for(lambda: len(sim.rest_calls) == 1)
        assert not hanging.done()
        assert (await hanging).status == 200
        assert time.monotonic() - began_s >= 0.5


async def test_leaving_waits_for_no_hanging_call() -> None:
    """Whoever still waits when the double goes is cut off."""
    async with AlpacaSimulator() as sim:
        sim.arm(HangRest(600.0), times=1)
        client = ClientSession(sim.rest_url, headers=KEYS, timeout=ClientTimeout(total=60))
        hanging = asyncio.ensure_future(client.get(LATEST))  # noqa: TID251
        await sim.wait_for(lambda: len(sim.rest_calls) == 1)
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 15
    with pytest.raises(ClientConnectionError):
        await hanging
    await client.close()


async def test_healing_ends_it() -> None:
    """After a heal no rule for REST is left."""
    async with AlpacaSimulator() as sim, calling(sim) as client:
        sim.refuse_rest(500, times=None)
        sim.heal()
        async with client.get(LATEST) as answer:
            assert answer.status == 200


# --- life -----------------------------------------------------------------------------------------------------


async def test_without_rest() -> None:
    """Whoever wants no REST has none, and is told so."""
    async with AlpacaSimulator(SimulatorSettings(rest_port=None)) as sim:
        with pytest.raises(RuntimeError, match="rest_port"):
            _ = sim.rest_url


async def test_a_taken_port_leaves_nothing_open() -> None:
    """When REST cannot listen, entering fails and the websocket's port is free again."""
    async with AlpacaSimulator() as first:
        taken = int(first.rest_url.rpartition(":")[2])
        second = AlpacaSimulator(SimulatorSettings(rest_port=taken))
        with pytest.raises(OSError, match="address already in use"):
            await second.__aenter__()
        async with AlpacaSimulator(SimulatorSettings(port=second.port)):
            pass


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"rest_port": 70_000}, "70000 is not a port"),
        ({"port": 9120, "rest_port": 9120}, "both websocket and REST"),
        ({"market_hours": "sometimes"}, "'sometimes'"),
        ({"history": -1}, "history of -1"),
    ],
)
def test_settings_that_cannot_be(options: Mapping[str, Any], reason: str) -> None:
    """Each is refused with its reason."""
    with pytest.raises(BadSettings, match=reason):
        SimulatorSettings(**options)
