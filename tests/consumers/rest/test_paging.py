"""Pages that lead nowhere are left, before they have cost the account its calls."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers import Quote
from consumers.rest import AlpacaRest, RestUnavailable
from consumers.rest.paging import EMPTY_PAGES, NoProgress, Paging
from consumers.rest.times import format_rfc3339
from tests.consumers.rest.conftest import KEY, QUICK, SECRET, T0_NS

Page = tuple[list[dict[str, Any]], str | None]


def row(number: int) -> dict[str, Any]:
    """A quote, or a bar, that is told from others by its time."""
    prices = {"bp": 1.0, "ap": 2.0, "bs": number, "o": 1, "h": 1, "l": 1, "c": 1, "v": 1}
    return {"t": format_rfc3339(T0_NS + number * 1_000), **prices}


@asynccontextmanager
async def answering(
    pages: Callable[[str | None], Page],
) -> AsyncIterator[tuple[AlpacaRest, list[str | None]]]:
    """A client of a service that answers each token with what `pages` says, and the tokens it was asked for."""
    asked: list[str | None] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            while (await reader.readline()).strip():
                pass
            url = urlsplit(line.split()[1].decode())
            token = parse_qs(url.query).get("page_token", [None])[0]
            asked.append(token)
            rows, following = pages(token)
            kind = url.path.rpartition("/")[2]
            body = json.dumps({kind: {"AAPL": rows}, "next_page_token": following}).encode()
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        url = f"http://{host}:{port}"
        async with AlpacaRest(KEY, SECRET, data_url=url, trading_url=url, retry=QUICK, timeout_s=15) as rest:
            yield rest, asked


CIRCLES: dict[str, Callable[[str | None], Page]] = {
    "the same page": lambda _: ([row(1)], "A"),
    "A, B, A, B": lambda token: ([row(2)], "A") if token == "B" else ([row(1)], "B"),
    "A, B, A, B, empty": lambda token: ([], "A" if token == "B" else "B"),
    "A, B, C, A, B, C": lambda token: (
        [row("0ABC".index(token or "0") + 1)],
        {"A": "B", "B": "C"}.get(token or "", "A"),
    ),
    "ever new tokens for the same page": lambda token: ([row(1), row(2)], f"{int(token or 0) + 1}"),
    "ever new tokens for the first page of two": lambda token: (
        [row(int(token or 0) % 2)],
        f"{int(token or 0) + 1}",
    ),
    "ever new tokens and nothing else": lambda token: ([], f"{int(token or 0) + 1}"),
    "rows that cannot be read": lambda token: ([{"t": "soon"}], f"{int(token or 0) + 1}"),
}


@pytest.mark.fault("Q26")
@pytest.mark.parametrize("circle", CIRCLES)
@pytest.mark.parametrize("kind", ["quotes", "bars"])
async def test_pages_that_lead_in_a_circle_are_left(circle: str, kind: str) -> None:
    """With an error that says so, after few calls, and before anything was handed out three times."""
    async with answering(CIRCLES[circle]) as (rest, asked):
        found: list[Quote] = []
        keep = found.append

        async def ask() -> None:
            if kind == "bars":
                await rest.bars("AAPL", start=T0_NS)
            else:
                async for quote in rest.quotes("AAPL", T0_NS):
                    keep(quote)

        with pytest.raises(RestUnavailable, match="what came until then is not all"):
            async with asyncio.timeout(60):
                await ask()
    assert len(asked) <= EMPTY_PAGES + 2
    assert len(found) <= 2 * len({quote.time_ns for quote in found})


@pytest.mark.fault("Q26")
async def test_pages_that_go_on_are_read_to_their_end() -> None:
    """However many there are; some may be empty, or begin at the time with which the one before ended."""
    count = 40

    def pages(token: str | None) -> Page:
        number = int(token or 0)
        rows = [] if number % 5 == 4 else [row(10 * number + step) for step in range(11)]
        return rows, None if number == count - 1 else str(number + 1)

    async with answering(pages) as (rest, asked):
        found = [quote.bid_size async for quote in rest.quotes("AAPL", T0_NS)]
    assert len(asked) == count
    assert set(range(390)) - set(found) == {10 * n + s for n in range(4, 39, 5) for s in range(1, 10)}


def turn_all(pages: Iterator[tuple[Sequence[Any], str | None]], limit: int) -> int:
    """How many pages are turned until there is found to be no progress; `limit` when none is."""
    paging = Paging()
    for number, (rows, token) in enumerate(itertools.islice(pages, limit)):
        try:
            paging.turned(rows, token)
        except NoProgress:
            return number
    return limit


@given(st.integers(0, 30), st.integers(1, 30))
def test_any_circle_is_found_within_a_few_times_its_length(tail: int, length: int) -> None:
    """Whatever leads into it, by the tokens alone, and with rows that are all of one time."""
    tokens = (f"{n if n < tail else tail + (n - tail) % length}" for n in itertools.count())
    fresh = itertools.count()
    pages = (([row(next(fresh))], token) for token in tokens)
    assert turn_all(pages, 1_000) <= 3 * (tail + length) + 3


@given(st.lists(st.integers(0, 3), min_size=1, max_size=300))
def test_what_goes_on_is_never_taken_for_a_circle(steps: list[int]) -> None:
    """Pages of any number of rows, each later than the one before, under tokens that are all different."""
    times = itertools.count()
    pages = (([row(next(times)) for _ in range(step or 1)], f"{n}") for n, step in enumerate(steps))
    assert turn_all(pages, len(steps)) == len(steps)


def test_memory_and_time_do_not_grow_with_the_pages() -> None:
    """Twenty thousand pages are no more than one."""
    paging, began_s = Paging(), time.process_time()
    for number in range(20_000):
        paging.turned([row(number)], str(number))
    assert time.process_time() - began_s < 10
    assert all(not isinstance(value, list | dict | set) for value in vars(paging).values())
