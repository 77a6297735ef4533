"""Recordings on disk: what is read back, and what is refused with which remedy."""

import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from consumers import Gap, Quote
from consumers.testing import (
    BadRecording,
    a_gap,
    a_quote,
    by_time,
    memory_bus,
    quotes_of,
    read_recording,
    write_recording,
)
from ingestor.commands.tail import _json_line

TAPE = "t_ns,bid_price,bid_size,ask_price,ask_size\n"
ROW = "1340285400000000000,223.95,100,224.2,200\n"


@pytest.mark.parametrize("name", ["day.ndjson", "day.jsonl.gz"])
async def test_what_is_written_is_read_back(tmp_path: Path, name: str) -> None:
    """Every field of quotes and gaps, from a plain loop or from a history."""
    async with memory_bus() as bus:
        stored = await bus.publish(
            *quotes_of("AAPL", count=50), a_gap("AAPL", start="09:59", end="10:00", missing=2)
        )
        path = tmp_path / name
        assert await write_recording(path, bus.history("AAPL", 0)) == 51
        assert list(read_recording(path)) == stored
        assert await write_recording(path, stored[:3]) == 3
        assert list(read_recording(path)) == stored[:3]


def test_what_the_command_line_prints_is_a_recording(tmp_path: Path) -> None:
    """`quotebus tail --json` into a file is enough."""
    items: list[Quote | Gap] = [a_quote("BRK.B", ask=None, conditions=("R", "4")), a_gap("BRK.B")]
    path = tmp_path / "printed"
    path.write_text("\n".join(map(_json_line, items)) + "\n\n")
    assert list(read_recording(path)) == items


def test_a_tape_is_read_row_by_row(tmp_path: Path) -> None:
    """The symbol is the row's, the caller's or the file's; a price of 0 is no active side."""
    path = tmp_path / "AMZN-2012-06-21.csv.gz"
    with gzip.open(path, "wt") as file:
        file.write(TAPE + ROW + "1340285400000000001,0,0,224.2,200\n\n")
    first, second = read_recording(path)
    assert isinstance(first, Quote)
    assert isinstance(second, Quote)
    assert (first.symbol, first.time_ns, first.bid_price, first.ask_size) == (
        "AMZN",
        1340285400000000000,
        223.95,
        200,
    )
    assert second.bid_price is None
    assert [item.symbol for item in read_recording(path, symbol="TSLA")] == ["TSLA", "TSLA"]
    named = tmp_path / "mixed.csv"
    named.write_text("symbol," + TAPE + "MSFT," + ROW)
    assert [item.symbol for item in read_recording(named)] == ["MSFT"]


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("a.csv", "", "line 1: no column t_ns"),
        ("A.csv", TAPE + "x,1,1,1,1\n", "line 2: invalid literal"),
        ("A.csv", TAPE + ROW + "1340285400000000000,1,1\n", "line 3: zip"),
        ("A.csv", TAPE + "1340285400000000000,-1,1,1,1\n", "line 2: a value is negative"),
        ("A.csv", TAPE + "1340285400000000000,nan,1,1,1\n", "line 2: a value is negative or not finite"),
        ("A.csv", TAPE + "1340285400,1,1,1,1\n", "line 2: .*nanoseconds"),
        ("lower-case.csv", TAPE + ROW, "line 2: lower case"),
        ("A.csv", TAPE + "1" * 20_000, "over 10000 characters"),
        ("x.ndjson", "{}\n", "line 1: no quote and no gap"),
        ("x.ndjson", "[1]\n", "line 1: no quote and no gap"),
        ("x.ndjson", '{"type":"bar"}\n', "line 1: an item of type 'bar'"),
        ("x.ndjson", json.dumps({"type": "quote", "symbol": "AAPL"}) + "\n", "missing required field"),
        ("x.ndjson", "not json\n", "line 1: no quote"),
        ("x.ndjson.gz", "not gzip", "Not a gzipped file"),
    ],
)
def test_a_recording_that_cannot_be_read_is_named_with_the_line(
    tmp_path: Path, name: str, text: str, why: str
) -> None:
    """File, line, reason and remedy, and never another error."""
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(BadRecording, match=why) as caught:
        list(read_recording(path))
    assert caught.value.path == path
    assert ";" in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """As any other trouble with it."""
    with pytest.raises(BadRecording, match=r"nowhere.csv: No such file.*check the path"):
        list(read_recording(tmp_path / "nowhere.csv"))


async def test_several_recordings_become_one_by_time() -> None:
    """Each item once, and equals in the order of the sources."""

    async def later() -> AsyncIterator[Quote | Gap]:
        for quote in quotes_of("MSFT", count=40, start="09:30:00.1"):
            yield quote

    aapl = list(quotes_of("AAPL", count=60))
    merged = [
        item async for item in by_time(aapl, later(), [], [a_gap("IBM", start="09:30", end="09:30:00.2")])
    ]
    times = [item.to_ns if isinstance(item, Gap) else item.time_ns for item in merged]
    assert len(merged) == 101
    assert times == sorted(times)
    assert [item for item in merged if item.symbol == "AAPL"] == aapl
