"""Tapes: every row counts, and a bad one is named."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import BadTape, SimQuote, read_tape, write_tape
from simulator.tape import Pace, symbol_of_name

HEADER = "t_ns,bid_price,bid_size,ask_price,ask_size"

quotes = st.builds(
    SimQuote,
    symbol=st.sampled_from(["AAPL", "BRK.B", "MSFT"]),
    t_ns=st.integers(0, 2**62),
    bid_price=st.floats(0, 1e6),
    bid_size=st.integers(0, 2**32 - 1),
    ask_price=st.floats(0, 1e6),
    ask_size=st.integers(0, 2**32 - 1),
)


@given(rows=st.lists(quotes, max_size=30), packed=st.booleans())
@settings(max_examples=40, deadline=None)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, rows: list[SimQuote], packed: bool) -> None:
    """What is written is read back to the last digit, in any order of times, repeats included."""
    path = tmp_path_factory.mktemp("tapes") / ("any.csv.gz" if packed else "any.csv")
    rows = [row for row in rows for _ in range(2)]
    assert write_tape(path, rows, with_symbols=True) == len(rows)
    assert list(read_tape(path)) == rows


def test_symbol_from_the_name(tmp_path: Path) -> None:
    """Without column or option the file's name says whose tape it is."""
    path = tmp_path / "BRK.B-2012-06-21.csv"
    write_tape(path, [SimQuote("ZZZ", 1, 1.0, 1, 2.0, 1)])
    assert [row.symbol for row in read_tape(path)] == ["BRK.B"]
    assert [row.symbol for row in read_tape(path, "MSFT")] == ["MSFT"]
    with pytest.raises(BadTape, match="give the symbol or rename"):
        symbol_of_name(tmp_path / "my tape.csv")


def test_streams(tmp_path: Path) -> None:
    """Rows before a bad one are handed out: the file is not read ahead."""
    path = tmp_path / "AAPL-x.csv"
    path.write_text(f"{HEADER}\n1,1,1,2,1\n2,oops,1,2,1\n")
    rows = read_tape(path)
    assert next(rows).t_ns == 1
    with pytest.raises(BadTape, match=r"AAPL-x\.csv, line 3: .*oops.*; mend or delete the row"):
        next(rows)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "line 1: the file is empty"),
        ("t_ns,bid_price\n1,2\n", "line 1: no column bid_size, ask_price, ask_size"),
        (f"{HEADER}\n1,1,1,2\n", "line 2: 4 values where the header has 5"),
        (f"{HEADER}\n-1,1,1,2,1\n", "line 2: a value is negative"),
        (f"{HEADER}\n1,nan,1,2,1\n", "not finite"),
        (f"{HEADER}\n1,1,1,inf,1\n", "not finite"),
        (f"{HEADER}\n1.5,1,1,2,1\n", "line 2: invalid literal"),
        (f"{HEADER},symbol\n1,1,1,2,1,lower\n", "line 2: lower case; did you mean LOWER"),
        (f"{HEADER}\n{'1' * 10_001}\n", "line 2: a line of over 10000"),
    ],
)
def test_complaints(tmp_path: Path, text: str, reason: str) -> None:
    """What is wrong with a tape is said with its file and line."""
    path = tmp_path / "AAPL-x.csv"
    path.write_text(text)
    with pytest.raises(BadTape, match=reason) as caught:
        list(read_tape(path))
    assert str(path) in str(caught.value)


def test_files_that_are_no_text(tmp_path: Path) -> None:
    """A missing file, a torn gzip and a binary file are complaints, not tracebacks of the library."""
    torn = tmp_path / "AAPL-x.csv.gz"
    write_tape(torn, [SimQuote("AAPL", n, 1.0, 1, 2.0, 1) for n in range(1_000)])
    torn.write_bytes(torn.read_bytes()[:-20])
    binary = tmp_path / "AAPL-y.csv"
    binary.write_bytes(b"\xff\xfe\x00\x01" * 10)
    for path in (tmp_path / "AAPL-none.csv", torn, binary):
        with pytest.raises(BadTape, match=path.name):
            list(read_tape(path))


def test_pace() -> None:
    """Twice the speed is half the wait, a row dated back is due at once, no speed is no wait."""
    pace = Pace(1_000_000_000, 2.0, 100.0, 0)
    assert pace.due_s(3_000_000_000) == 101.0
    assert pace.due_s(500_000_000) < 100.0
    assert Pace(1_000_000_000, None, 100.0, 0).due_s(10**15) == 100.0


@given(times=st.lists(st.integers(0, 2**50), min_size=2, max_size=20))
def test_redating_keeps_distances(times: list[int]) -> None:
    """Dated to now, the first row is now and the distances stay."""
    pace = Pace(times[0], 1.0, 0.0, 7_000, redate=True)
    dated = [pace.dated(SimQuote("A", t, 1.0, 1, 2.0, 1)).t_ns for t in times]
    assert dated[0] == 7_000
    assert [b - a for a, b in pairwise(dated)] == [b - a for a, b in pairwise(times)]
