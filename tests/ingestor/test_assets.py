"""What Alpaca's list of assets says of a symbol, and whom it is asked of."""

import asyncio
import itertools
import json
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.assets.listing import MAX_ASSETS, MAX_HINTS, BadListing, Listing, remarks
from ingestor.assets.question import Host, hosts_for
from simulator import AccountRules, AlpacaSimulator, SimulatorSettings


@dataclass
class Row:
    """One asset."""

    symbol: str
    status: str = "active"
    tradable: bool = True
    exchange: str = "NASDAQ"


LISTING = Listing.of(
    [
        *map(Row, "AAPL MSFT AMD AMAT BRK.A BRK.B GOOG GOOGL NVDA TSLA META".split()),
        Row("TWTR", "inactive", tradable=False, exchange="NYSE"),
        Row("HALT", tradable=False),
        Row("FMCC", exchange="OTC"),
        Row("META", "inactive", tradable=False),
        Row("SNAP", "inactive"),
        Row("SNAP", "active", exchange="NYSE"),
    ]
)


@pytest.mark.parametrize(
    ("symbol", "remark"),
    [
        ("AAPL", None),
        ("META", None),
        ("SNAP", None),
        ("ZZZZNOTASYM", "not an active asset at Alpaca"),
        ("APPL", "not an active asset at Alpaca; did you mean AAPL?"),
        ("APAL", "not an active asset at Alpaca; did you mean AAPL?"),
        ("BRKB", "not an active asset at Alpaca; did you mean BRK.B?"),
        ("BRK", "not an active asset at Alpaca; did you mean BRK.A or BRK.B?"),
        ("BRK.C", "not an active asset at Alpaca; did you mean BRK.A or BRK.B?"),
        ("GOOGLE", "not an active asset at Alpaca; did you mean GOOGL?"),
        ("TWTR", "not an active asset at Alpaca: inactive"),
        ("HALT", "not tradable at Alpaca"),
        ("FMCC", "traded over the counter, which this feed of listed stocks does not carry"),
    ],
)
def test_what_is_said_of_a_symbol(symbol: str, remark: str | None) -> None:
    """Nothing of one that trades; of others why no quote may come, with the nearest names that are active."""
    assert LISTING.remark(symbol) == remark
    assert remarks([symbol], LISTING, "iex") == ({} if remark is None else {symbol: remark})


def test_an_inactive_name_is_never_proposed() -> None:
    """Nor more than three."""
    listing = Listing.of([*(Row(f"AB{c}") for c in "CDEFG"), Row("ABX", "inactive")])
    assert listing.nearest("ABZ") == ["ABC", "ABD", "ABE"]


@pytest.mark.parametrize(
    ("symbol", "feed", "remark"),
    [
        ("FAKEPACA", "iex", "the symbol of Alpaca's test feed: set QUOTEBUS_FEED=test for it"),
        ("FAKEPACA", "test", None),
        ("AAPL", "test", "the test feed has FAKEPACA alone"),
        ("ZVZZT", "sip", "a symbol with which exchanges test their machines, not a stock"),
        ("ZVZZT", "custom", None),
        ("ZZZZNOTASYM", "sip", None),
    ],
)
def test_without_a_list_only_names_that_speak_for_themselves_have_a_remark(
    symbol: str, feed: str, remark: str | None
) -> None:
    """Nothing is claimed of any other; nor on a feed of one's own, which may carry whatever it likes."""
    assert remarks([symbol], None, feed) == ({} if remark is None else {symbol: remark})


def test_the_test_feed_is_not_held_against_the_list() -> None:
    """It has its own symbol, which is no asset."""
    assert remarks(["FAKEPACA"], LISTING, "test") == {}


def test_a_list_that_can_be_none_is_refused() -> None:
    """Else every symbol would be called unknown."""
    with pytest.raises(BadListing, match="no active asset"):
        Listing.of([])
    with pytest.raises(BadListing, match="no active asset"):
        Listing.of([Row("TWTR", "inactive")])
    with pytest.raises(BadListing, match="more than"):
        Listing.of(Row(f"S{n}") for n in range(MAX_ASSETS + 1))


def test_thousands_of_unknown_symbols_cost_little() -> None:
    """Names are looked up for a hundred of them; all have their remark."""
    listing = Listing.of(Row("".join(letters)) for letters in itertools.product("ABCDEFGH", repeat=4))
    unknown = [f"{n:05}" for n in range(5_000)]
    began_s = time.process_time()
    found = remarks(unknown, listing, "sip")
    assert time.process_time() - began_s < 5.0
    assert found.keys() == set(unknown)
    assert sum("did you mean" in remark for remark in found.values()) <= MAX_HINTS


@given(st.from_regex(r"[A-Z0-9.]{0,20}", fullmatch=True))
def test_any_name_has_a_bounded_remark(symbol: str) -> None:
    """Whatever stands in the set."""
    remark = LISTING.remark(symbol) or ""
    assert len(remark) < 150
    assert all(name in LISTING.values for name in LISTING.nearest(symbol))


@pytest.mark.parametrize(
    ("key", "url", "hosts"),
    [
        ("PK123", "", ["paper-api.alpaca.markets", "api.alpaca.markets"]),
        ("AK123", "", ["api.alpaca.markets", "paper-api.alpaca.markets"]),
        ("x", "", ["paper-api.alpaca.markets", "api.alpaca.markets"]),
        ("AK123", "http://127.0.0.1:1/v2/", ["http://127.0.0.1:1"]),
    ],
)
def test_paper_keys_are_asked_of_the_paper_host_first(key: str, url: str, hosts: list[str]) -> None:
    """The other one is tried when the first refuses the keys; an address of one's own is the only one."""
    found = hosts_for(key, url)
    assert [str(host) for host in found] == hosts
    assert all(isinstance(host, Host) for host in found)


QUESTION = """
import asyncio, json, sys
from ingestor.assets.question import Question
from ingestor.feed.session import Credentials

assets = asyncio.run(Question().ask(Credentials("k", "s"), sys.argv[1]))
brought = [name for name in ("pandas", "numpy", "alpaca.data", "alpaca.trading") if name in sys.modules]
print(json.dumps([len(assets), brought]))
"""


async def test_the_question_imports_no_more_than_asks_it() -> None:
    """Models and pandas would hold up the quotes for a second, and stay in memory."""
    async with AlpacaSimulator(SimulatorSettings(account=AccountRules(key="k", secret="s"))) as sim:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", QUESTION, sim.rest_url), stdout=subprocess.PIPE
        )
        async with asyncio.timeout(60):
            output, _ = await process.communicate()
    count, brought = json.loads(output)
    assert (count > 10, brought) == (True, [])
