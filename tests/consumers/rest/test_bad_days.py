"""What goes wrong with a call, and how a strategy hears of it: soon, in words, and never by waiting for ever."""

import asyncio
import threading
import time

import pytest

from consumers.rest import AlpacaRest, RestError, RestLimited, RestRefused, RestUnavailable, Retry
from consumers.rest.asker import THREADS
from simulator import AlpacaSimulator
from simulator.rest.faults import CutRest, HangRest, RefuseRest, SlowRest
from tests.consumers.rest.conftest import KEY, SECRET, rest_at

ONCE = Retry(attempts=1)


def rest_threads() -> int:
    """How many threads of any pool are alive."""
    return sum(thread.name.startswith("quotebus-rest") for thread in threading.enumerate())


async def settled(sim: AlpacaSimulator, calls: int) -> None:
    """Wait until the double has got so many calls."""
    await sim.wait_for(lambda: len(sim.rest_calls) >= calls, timeout_s=30)


@pytest.mark.parametrize("fault", [RefuseRest(500), RefuseRest(502), RefuseRest(504), CutRest()])
async def test_a_passing_fault_is_tried_again(
    sim: AlpacaSimulator, rest: AlpacaRest, fault: RefuseRest | CutRest
) -> None:
    """A page of HTML, a JSON error or half a body: the next attempt brings the answer."""
    sim.arm(fault, times=2)
    assert list(await rest.latest_quotes("AAPL")) == ["AAPL"]
    assert rest.calls == 3


async def test_a_lasting_fault_ends_in_words(sim: AlpacaSimulator, rest: AlpacaRest) -> None:
    """After the last attempt, with what the service said in one line."""
    sim.arm(RefuseRest(503), times=None)
    with pytest.raises(RestUnavailable, match=r"status 503 \(an HTML page.*after 4 attempts"):
        await rest.latest_quotes("AAPL")
    assert rest.calls == 4


@pytest.mark.parametrize("status", [403, 404, 422])
async def test_a_refusal_is_not_repeated(sim: AlpacaSimulator, rest: AlpacaRest, status: int) -> None:
    """The same question would be refused again."""
    sim.arm(RefuseRest(status), times=1)
    with pytest.raises(RestRefused, match=f"status {status}") as caught:
        await rest.clock()
    assert caught.value.status == status
    assert rest.calls == 1


async def test_a_429_is_waited_out(sim: AlpacaSimulator, rest: AlpacaRest) -> None:
    """Until the reset that the headers name, and not a moment less."""
    sim.arm(RefuseRest(429, reset_s=1.0), times=1)
    await rest.clock()
    first, second = sim.rest_calls
    assert second.at_s - first.at_s >= 0.9
    assert rest.calls == 2


async def test_a_429_beyond_the_deadline_is_told_at_once(sim: AlpacaSimulator) -> None:
    """With the seconds until it may work; until then not even a call is made."""
    async with rest_at(sim, retry=Retry(deadline_s=10)) as rest:
        await rest.clock()
        sim.arm(RefuseRest(429, reset_s=50), times=1)
        began_s = time.monotonic()
        for _ in range(2):
            with pytest.raises(RestLimited) as caught:
                await rest.clock()
            assert 30 < caught.value.retry_after_s <= 52
        assert time.monotonic() - began_s < 9
        assert rest.calls == len(sim.rest_calls) == 2


@pytest.mark.parametrize("fault", [HangRest(600), SlowRest(36)])
async def test_one_that_never_answers_is_left(sim: AlpacaSimulator, fault: HangRest | SlowRest) -> None:
    """Silence, and a drip that keeps every single read alive, end with the time-out, and so do their threads."""
    async with rest_at(sim, retry=ONCE, timeout_s=2.0) as rest:
        await rest.clock()
        sim.arm(fault, times=THREADS)
        questions = (outcome(rest, f"S{number}") for number in range(THREADS))
        for answer in await asyncio.gather(*questions):
            assert isinstance(answer, RestUnavailable)
            assert "no answer within" in str(answer)
        # Were the threads still in the dead calls, this would wait for one.
        assert list(await rest.latest_quotes("AAPL")) == ["AAPL"]


async def test_a_cancelled_question_ends_at_once_and_its_thread_too(sim: AlpacaSimulator) -> None:
    """Far more of them than there are threads, and the next question is answered all the same."""
    async with rest_at(sim, timeout_s=60, retry=Retry(deadline_s=100)) as rest:
        await rest.clock()
        for number in range(2 * THREADS):
            sim.arm(HangRest(600), times=1)
            async with asyncio.TaskGroup() as group:
                question = group.create_task(rest.latest_quotes("AAPL"))
                await settled(sim, number + 2)
                began_s = time.monotonic()
                question.cancel()
            assert time.monotonic() - began_s < 3
        assert list(await rest.latest_quotes("AAPL")) == ["AAPL"]
        assert rest_threads() <= THREADS


async def test_cancelling_at_any_moment_frees_the_thread(sim: AlpacaSimulator) -> None:
    """In line, while it connects, sends, or waits: no moment is one in which an abort is lost."""
    async with rest_at(sim, timeout_s=100, retry=Retry(deadline_s=200)) as rest:
        await rest.clock()
        sim.arm(HangRest(600), times=None)
        for number in range(100):
            async with asyncio.TaskGroup() as group:
                question = group.create_task(rest.latest_quotes("AAPL"))
                await asyncio.sleep(number * 0.00005)
                question.cancel()
        sim.heal()
        async with asyncio.timeout(50):
            await asyncio.gather(*(rest.latest_quotes(f"S{number}") for number in range(2 * THREADS)))


async def test_when_the_asking_task_is_cancelled_another_asks(sim: AlpacaSimulator) -> None:
    """Of several that wait for one answer each may leave alone."""
    async with rest_at(sim) as rest, asyncio.TaskGroup() as group:
        await rest.clock()
        sim.arm(HangRest(600), times=1)
        first, second, third = (group.create_task(rest.latest_quotes("AAPL")) for _ in range(3))
        await settled(sim, 2)
        third.cancel()
        first.cancel()
        assert list(await second) == ["AAPL"]
        assert rest.calls == 3


async def test_all_who_wait_get_the_error(sim: AlpacaSimulator, rest: AlpacaRest) -> None:
    """And the question is not asked again for each of them."""
    sim.arm(RefuseRest(404), times=1)
    outcomes = await asyncio.gather(*(rest.latest_quotes("AAPL") for _ in range(5)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {RestRefused}
    assert rest.calls == 1


async def test_the_loop_never_waits(sim: AlpacaSimulator, rest: AlpacaRest) -> None:
    """While a call hangs, the loop turns."""
    sim.arm(HangRest(0.5), times=1)
    turns = 0
    async with asyncio.TaskGroup() as group:
        question = group.create_task(rest.latest_quotes("AAPL"))
        while not question.done():
            turns += 1
            await asyncio.sleep(0.001)
    assert turns > 50


async def test_closing_ends_what_hangs(sim: AlpacaSimulator) -> None:
    """Whoever waits is told, those in line for a thread too, and no thread keeps the program from ending."""
    rest = rest_at(sim, timeout_s=60, retry=Retry(deadline_s=100))
    await rest.clock()
    sim.arm(HangRest(600), times=None)
    async with asyncio.TaskGroup() as group:
        questions = [group.create_task(outcome(rest, f"S{number}")) for number in range(3 * THREADS)]
        await settled(sim, 1 + THREADS)
        began_s = time.monotonic()
        await rest.aclose()
    assert {type(await question) for question in questions} == {RestError}
    assert time.monotonic() - began_s < 10
    assert len(sim.rest_calls) == 1 + THREADS
    async with asyncio.timeout(10):
        while rest_threads():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def outcome(rest: AlpacaRest, symbol: str = "AAPL") -> object:
    """The answer, or the error in its place."""
    try:
        return await rest.latest_quotes(symbol)
    except RestError as error:
        return error


async def test_a_host_that_is_not_there_is_named_in_words() -> None:
    """A refused connection, tried again, without addresses or headers in the error."""
    retry = Retry(attempts=2, first_delay_s=0.01)
    async with AlpacaRest(KEY, SECRET, data_url="http://127.0.0.1:9", retry=retry) as rest:
        with pytest.raises(RestUnavailable, match=r"the connection failed.*after 2 attempts"):
            await rest.latest_quotes("AAPL")


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n<html>hi</html>",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull",
        b'HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{"a": "\xff"}\n',
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nnogzi",
        b"220 smtp.example.com ready\r\n",
        b"",
    ],
)
async def test_an_answer_that_is_none_is_unavailable(reply: bytes) -> None:
    """Whatever a captive portal, a proxy or another program says on that port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with AlpacaRest(KEY, SECRET, data_url=url, trading_url=url, retry=ONCE) as rest:
            for question in (rest.latest_quotes("AAPL"), rest.clock(), anext(rest.quotes("AAPL", 10**18))):
                with pytest.raises(RestUnavailable) as caught:
                    await question
                assert SECRET not in repr(caught.value)


async def test_an_endless_answer_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """No body fills the memory, whatever its length says."""
    from consumers.rest import vendor

    monkeypatch.setattr(vendor, "MAX_BODY_BYTES", 1 << 20)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                writer.write(b" " * 65_536)
                await writer.drain()
        except ConnectionError:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with AlpacaRest(KEY, SECRET, trading_url=url, retry=ONCE, timeout_s=30) as rest:
            with pytest.raises(RestUnavailable, match="more than 1 MB"):
                await rest.clock()
