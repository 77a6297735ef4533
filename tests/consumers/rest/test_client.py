"""Answers of the service, as a strategy gets them, through alpaca-py's own clients."""

import asyncio
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from datetime import date

import pytest

from consumers import BadStart, BadSymbol
from consumers.rest import AlpacaRest, RestError, RestRefused
from simulator import AlpacaSimulator, SimulatorSettings
from tests.consumers.rest.conftest import KEY, SECRET, T0_NS, rest_at, sim_quote


async def test_latest_quotes_keep_every_nanosecond(sim: AlpacaSimulator, rest: AlpacaRest) -> None:
    """Several symbols are one call; the receipt is when it was asked."""
    sim.send([sim_quote("AAPL", 1), sim_quote("MSFT", 2, T0_NS + 1)])
    before_ns = time.time_ns()
    found = await rest.latest_quotes("MSFT", "AAPL", "AAPL")
    assert list(found) == ["AAPL", "MSFT"]
    assert [quote.time_ns for quote in found.values()] == [T0_NS, T0_NS + 1]
    assert [quote.bid_size for quote in found.values()] == [1, 2]
    assert {quote.id for quote in found.values()} == {None}
    for quote in found.values():
        assert quote.received_ns is not None
        assert before_ns - 1_000 <= quote.received_ns <= time.time_ns()
    (call,) = sim.rest_calls
    assert (call.path, call.query["symbols"], call.query["feed"]) == (
        "/v2/stocks/quotes/latest",
        "AAPL,MSFT",
        "iex",
    )
    assert await rest.latest_quotes() == {}


async def test_very_many_symbols_are_asked_in_pieces(sim: AlpacaSimulator, rest: AlpacaRest) -> None:
    """1 200 symbols are three calls, and all have their quote."""
    names = [f"S{number}" for number in range(1_200)]
    assert sorted(await rest.latest_quotes(*names)) == sorted(names)
    assert len(sim.rest_calls) == rest.calls == 3


async def test_past_quotes_come_page_by_page(sim: AlpacaSimulator, rest: AlpacaRest) -> None:
    """From the start up to, not including, the end, in order; each page is one call."""
    sim.send([sim_quote("AAPL", number, T0_NS + number) for number in range(25_000)])
    sizes: list[object] = []
    async for quote in rest.quotes("AAPL", T0_NS + 5, T0_NS + 24_000):
        if not sizes:
            # Nothing is fetched ahead of what was asked for.
            assert rest.calls == 1
        assert (quote.id, quote.received_ns) == (None, None)
        sizes.append(quote.bid_size)
    assert sizes == list(range(5, 24_000))
    assert len(sim.rest_calls) == rest.calls == 3


async def test_a_limit_is_kept_across_pages(sim: AlpacaSimulator, rest: AlpacaRest) -> None:
    """And the last page asks for no more than is left."""
    sim.send([sim_quote("AAPL", number, T0_NS + number) for number in range(12_000)])
    found = [quote.bid_size async for quote in rest.quotes("AAPL", T0_NS, limit=10_500)]
    assert found == list(range(10_500))
    assert [call.query["limit"] for call in sim.rest_calls] == ["10000", "500"]


async def test_bars_clock_calendar_and_assets_are_read(sim: AlpacaSimulator, rest: AlpacaRest) -> None:
    """The other questions that a strategy has."""
    minute_ns = 60 * 10**9
    start_ns = T0_NS // minute_ns * minute_ns
    bars = await rest.bars("AAPL", "1Min", start=start_ns, end=start_ns + 10 * minute_ns)
    assert [bar.time_ns for bar in bars] == [start_ns + number * minute_ns for number in range(10)]
    assert all(bar.low <= bar.open <= bar.high and bar.volume for bar in bars)
    assert len(await rest.bars("AAPL", "1Hour", start=start_ns, limit=3)) == 3
    clock = await rest.clock()
    assert abs(clock.time_ns - time.time_ns()) < 60 * 10**9
    days = await rest.calendar(date(2025, 11, 10), date(2025, 11, 14))
    assert [day.date for day in days] == [f"2025-11-{number}" for number in range(10, 15)]
    assert all(day.close_ns - day.open_ns == 6.5 * 3600 * 10**9 for day in days)
    assert all(asset.symbol and asset.status == "active" for asset in await rest.assets())


async def test_what_cannot_be_asked_is_refused_here(sim: AlpacaSimulator, rest: AlpacaRest) -> None:
    """No call is spent on a question that has no answer."""
    with pytest.raises(BadSymbol, match="aapl"):
        await rest.latest_quotes("aapl")
    with pytest.raises(BadStart, match="start"):
        _ = [quote async for quote in rest.quotes("AAPL", 5_000_000_000)]
    with pytest.raises(ValueError, match="limit=0"):
        _ = [quote async for quote in rest.quotes("AAPL", T0_NS, limit=0)]
    with pytest.raises(ValueError, match="REST URL"):
        AlpacaRest(KEY, SECRET, data_url="http://user:password@host")
    assert rest.calls == 0


async def test_the_same_question_at_the_same_time_is_one_call(sim: AlpacaSimulator, rest: AlpacaRest) -> None:
    """Fifty tasks that ask for the same symbols wait for one answer."""
    answers = await asyncio.gather(*(rest.latest_quotes("AAPL", "MSFT") for _ in range(50)))
    assert all(answer == answers[0] for answer in answers)
    assert len(sim.rest_calls) == rest.calls == 1
    await rest.latest_quotes("AAPL", "MSFT")
    assert rest.calls == 2


async def test_wrong_keys_are_refused_in_words(sim: AlpacaSimulator) -> None:
    """With the status and what to check, at once, and without the secret anywhere in the error."""
    secret = "another-s3cr3t-that-is-wrong"
    async with AlpacaRest(KEY, secret, data_url=sim.rest_url, trading_url=sim.rest_url) as rest:
        with pytest.raises(RestRefused, match="check key and secret") as caught:
            await rest.clock()
        assert caught.value.status == 401
        assert rest.calls == 1
        error: BaseException | None = caught.value
        while error is not None:
            assert secret not in f"{error!r} {vars(error)}"
            assert not hasattr(error, "request")
            error = error.__cause__ or error.__context__
        assert secret not in f"{rest!r} {rest._asker._account!r}"
        assert KEY not in f"{rest!r} {rest._asker._account!r}"


@pytest.mark.parametrize("wrong", ["", "with\nnewline", " padded", "ünïcode"])
def test_keys_that_no_header_can_carry_are_not_repeated(wrong: str) -> None:
    """An HTTP library would quote such a value in its error."""
    for keys in ((wrong, SECRET), (KEY, wrong)):
        with pytest.raises(ValueError, match="copy it again") as caught:
            AlpacaRest(*keys)
        assert not wrong.strip() or wrong.strip() not in str(caught.value)


async def test_keys_come_from_the_environment(sim: AlpacaSimulator) -> None:
    """Either spelling; the simulator's address leads both hosts there."""
    for names in (("APCA_API_KEY_ID", "APCA_API_SECRET_KEY"), ("ALPACA_API_KEY", "ALPACA_SECRET_KEY")):
        environment = {names[0]: KEY, names[1]: SECRET, "QUOTEBUS_REST_URL": sim.rest_url + "/"}
        async with AlpacaRest.from_env(environment) as rest:
            await rest.clock()
            await rest.latest_quotes("AAPL")
    with pytest.raises(RestError, match="APCA_API_KEY_ID"):
        AlpacaRest.from_env({})


async def test_one_that_is_closed_says_so(sim: AlpacaSimulator, rest: AlpacaRest) -> None:
    """Closing twice does no harm."""
    await rest.clock()
    await rest.aclose()
    await rest.aclose()
    with pytest.raises(RestError, match="closed"):
        await rest.clock()


async def test_a_forked_child_is_told_to_make_its_own(sim: AlpacaSimulator, rest: AlpacaRest) -> None:
    """It has neither the threads nor the connections of its parent."""
    await rest.clock()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            rest._asker.check()
        except RestError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)  # noqa: ASYNC222
    os.close(writer)
    assert b"make one in each process" in os.read(reader, 1_000)
    os.close(reader)
    await rest.clock()


async def test_leaving_a_history_early_leaves_nothing_behind(sim: AlpacaSimulator, rest: AlpacaRest) -> None:
    """The first quote of many is one call, and closing the iteration is enough."""
    quotes = rest.quotes("AAPL", T0_NS)
    assert (await anext(quotes)).time_ns >= T0_NS
    await quotes.aclose()
    assert rest.calls == 1


@pytest.mark.fault("Q16")
def test_importing_brings_nothing_of_alpaca_py() -> None:
    """Neither the import nor a client that was not asked anything."""
    program = (
        "import sys, consumers, consumers.rest as r; r.AlpacaRest('k', 's');"
        "print([m for m in ('alpaca', 'pandas', 'requests', 'urllib3', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


FIRST_QUESTION = """
import asyncio, json, sys, time
from consumers.rest import AlpacaRest

async def main():
    rest, longest_s, is_over = AlpacaRest("k", "s", data_url=sys.argv[1], trading_url=sys.argv[1]), 0.0, False

    async def tick():
        # What all threads of the program together had of the processor while this one waited for its turn.
        nonlocal longest_s
        last_s = time.process_time()
        while not is_over:
            await asyncio.sleep(0.001)
            now_s = time.process_time()
            longest_s, last_s = max(longest_s, now_s - last_s), now_s

    async with rest, asyncio.TaskGroup() as tasks:
        tasks.create_task(tick())
        await asyncio.sleep(0.02)
        found = await rest.latest_quotes("AAPL")
        is_over = True
    brought = [name for name in ("pandas", "numpy", "alpaca.data", "alpaca.trading") if name in sys.modules]
    print(json.dumps([list(found), longest_s, brought]))

asyncio.run(main())
"""


@pytest.mark.fault("Q16")
async def test_the_first_question_holds_up_nobody(sim: AlpacaSimulator) -> None:
    """It imports what asks, in a thread, and no more of it than that: a loop beside it has its turns."""
    rules = replace(sim.settings.account, key="k", secret="s")
    async with AlpacaSimulator(SimulatorSettings(account=rules)) as own:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", FIRST_QUESTION, own.rest_url), stdout=subprocess.PIPE
        )
        async with asyncio.timeout(60):
            output, _ = await process.communicate()
    found, longest_s, brought = json.loads(output)
    assert (found, brought) == (["AAPL"], [])
    # A single call into C takes up to 0.06 s on a slow machine; with pandas it was twice that on a quick one.
    assert longest_s < 0.1


def test_without_alpaca_py_the_remedy_is_named() -> None:
    """What is missing, what for, and how to get it."""
    program = (
        "import sys, asyncio, importlib.util as u; find = u.find_spec;"
        "u.find_spec = lambda name, *a: None if name == 'alpaca' else find(name, *a)\n"
        "from consumers.rest import AlpacaRest, RestMissing\n"
        "try: asyncio.run(AlpacaRest('k', 's').clock())\n"
        "except RestMissing as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert 'pip install "quotebus[rest]"' in done.stdout


async def test_an_own_client_is_needed_for_every_server(sim: AlpacaSimulator) -> None:
    """Hosts are those that were given; a path of version 2 is taken off."""
    async with AlpacaRest(KEY, SECRET, data_url=sim.rest_url + "/v2", trading_url=sim.rest_url) as rest:
        assert list(await rest.latest_quotes("AAPL")) == ["AAPL"]
    async with rest_at(sim) as other:
        await other.clock()
