"""Nothing is lost on the way into a frame, and every frame has the same columns."""

import builtins
import math
from collections.abc import Callable
from typing import Any

import msgspec
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers import Bus, BusError, ExtraMissing, Gap, Quote
from consumers.analysis import collect, to_arrow, to_pandas, to_polars
from tests.consumers.conftest import T0_NS, Writer


class Bar(msgspec.Struct, frozen=True):
    """As the REST client has it; a frame knows it by its fields alone."""

    symbol: str
    time_ns: int
    open: float
    high: float
    low: float
    close: float
    volume: int | float
    trade_count: int | None
    vwap: float | None


PRICES = st.none() | st.floats(min_value=0.0001, max_value=1e6)
SIZES = st.none() | st.integers(0, 2**53) | st.floats(0, 1e9)
TEXTS = st.none() | st.sampled_from(["V", "N", "", "é"])
TIMES = st.integers(0, 4_000_000_000_000_000_000)
QUOTES = st.builds(
    Quote,
    st.sampled_from(["AAPL", "BRK.B"]),
    st.none() | st.just("1763000000000-1000"),
    PRICES,
    SIZES,
    TEXTS,
    PRICES,
    SIZES,
    TEXTS,
    st.none() | st.lists(st.sampled_from(["R", "A"]), max_size=2).map(tuple),
    TEXTS,
    TIMES,
    st.none() | st.integers(-1_000_000, 10_000_000),
)
GAPS = st.builds(
    Gap,
    symbol=st.just("AAPL"),
    id=st.none() | st.just("1-1"),
    from_ns=TIMES,
    to_ns=TIMES,
    reason=st.sampled_from(["trimmed", "feed_disconnected"]),
    epoch=st.none() | st.integers(1, 2**60),
    missing=st.none() | st.integers(0, 2**60),
)
BARS = st.builds(
    Bar,
    st.just("AAPL"),
    TIMES,
    *[st.floats(1, 1e6)] * 4,
    st.integers(0, 2**53) | st.floats(0, 1e12),
    st.none() | st.integers(0, 2**60),
    st.none() | st.floats(1, 1e6),
)


def of_pandas(items: list[Any], of: Any = None) -> dict[str, list[Any]]:
    """The values of a pandas frame: times as whole nanoseconds, what is missing as None."""
    frame = to_pandas(items, of=of)
    found: dict[str, list[Any]] = {}
    for name, column in frame.items():
        values = (
            column.astype("int64").tolist() if _is_time(column) and column.notna().all() else list(column)
        )
        if _is_time(column) and not column.notna().all():
            values = [None if value is pd.NaT else value.value for value in column]
        values = [list(value) if isinstance(value, tuple) else value for value in values]
        found[str(name)] = [None if _is_missing(value) else value for value in values]
    return found


def _is_time(column: Any) -> bool:
    return isinstance(column.dtype, pd.DatetimeTZDtype)


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def of_polars(items: list[Any], of: Any = None) -> dict[str, list[Any]]:
    """The values of a polars frame."""
    frame = to_polars(items, of=of)
    times = [name for name, kind in frame.schema.items() if isinstance(kind, pl.Datetime)]
    return frame.with_columns(pl.col(times).cast(pl.Int64)).to_dict(as_series=False)


def of_arrow(items: list[Any], of: Any = None) -> dict[str, list[Any]]:
    """The values of an Arrow table."""
    table = to_arrow(items, of=of)
    found: dict[str, list[Any]] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        found[name] = (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist()
    return found


READERS: list[Callable[..., dict[str, list[Any]]]] = [of_pandas, of_polars, of_arrow]


@pytest.mark.keeps_open("polars keeps its threads and what they wait on")
@settings(max_examples=60, deadline=None)
@given(st.lists(QUOTES | GAPS, max_size=8))
def test_quotes_come_back_out_of_each_frame_as_they_went_in(items: list[Quote | Gap]) -> None:
    """To the nanosecond and the last bit of a price; gaps stand in a frame of their own."""
    quotes = [item for item in items if isinstance(item, Quote)]
    for read in READERS:
        found = read(items, Quote)
        assert found.pop("time") == [quote.time_ns for quote in quotes]
        assert found.pop("received") == [quote.received_ns for quote in quotes]
        conditions = [None if quote.conditions is None else list(quote.conditions) for quote in quotes]
        assert found.pop("conditions") == conditions
        assert found == {name: [getattr(quote, name) for quote in quotes] for name in found}
        assert len(found) == 9


@settings(max_examples=40, deadline=None)
@given(st.lists(QUOTES | GAPS, max_size=8))
def test_gaps_come_back_out_of_each_frame_as_they_went_in(items: list[Quote | Gap]) -> None:
    """With whole numbers that no float could hold."""
    gaps = [item for item in items if isinstance(item, Gap)]
    for read in READERS:
        found = read(items, Gap)
        assert found.pop("from") == [gap.from_ns for gap in gaps]
        assert found.pop("to") == [gap.to_ns for gap in gaps]
        assert found == {name: [getattr(gap, name) for gap in gaps] for name in found}
        assert list(found) == ["symbol", "reason", "missing", "epoch", "id"]


@settings(max_examples=40, deadline=None)
@given(st.lists(BARS, max_size=5))
def test_bars_come_back_out_of_each_frame_as_they_went_in(bars: list[Bar]) -> None:
    """Known by their fields alone, and with all columns even where there is none."""
    for read in READERS:
        found = read(bars, Bar)
        assert found.pop("time") == [bar.time_ns for bar in bars]
        assert found == {name: [getattr(bar, name) for bar in bars] for name in found}
        assert len(found) == 8


@pytest.mark.parametrize("of", [Quote, Gap, Bar])
@pytest.mark.parametrize("make", [to_pandas, to_polars, to_arrow])
def test_an_empty_frame_has_the_columns_of_a_full_one(make: Callable[..., Any], of: Any) -> None:
    """Names, order and types."""
    full = {
        Quote: Quote("A", "1-1", 1.0, 1, "V", 1.0, 2, "V", ("R",), "C", 5, 1),
        Gap: Gap(symbol="A", id="1-1", from_ns=1, to_ns=2, reason="x", missing=1, epoch=1),
        Bar: Bar("A", 1, 1.0, 1.0, 1.0, 1.0, 5, 3, 1.0),
    }
    empty, filled = make([], of=of), make([full[of]], of=of)
    if make is to_arrow or make is to_polars:
        assert empty.schema == filled.schema
    else:
        assert list(empty.dtypes.items()) == list(filled.dtypes.items())
    assert len(empty) == 0


def test_the_columns_are_these() -> None:
    """A name or a type changes only on purpose."""
    number, text = "float64", "string"
    assert {name: str(dtype) for name, dtype in to_pandas([]).dtypes.items()} == {
        "symbol": text,
        "time": "datetime64[ns, UTC]",
        "received": "datetime64[ns, UTC]",
        "bid_price": number,
        "bid_size": number,
        "bid_exchange": text,
        "ask_price": number,
        "ask_size": number,
        "ask_exchange": text,
        "conditions": "object",
        "tape": text,
        "id": text,
    }
    assert dict(to_polars([], of=Gap).schema) == {
        "symbol": pl.String(),
        "from": pl.Datetime("ns", "UTC"),
        "to": pl.Datetime("ns", "UTC"),
        "reason": pl.String(),
        "missing": pl.Int64(),
        "epoch": pl.Int64(),
        "id": pl.String(),
    }


async def test_a_history_becomes_a_frame(bus: Bus, writer: Writer) -> None:
    """Collected, then converted; an endless stream is collected up to a limit or for a time."""
    await writer.quotes("AAPL", 30)
    items = await collect(bus.history("AAPL", T0_NS))
    assert to_pandas(items)["bid_size"].tolist() == list(range(30))
    assert len(await collect(bus.quotes("AAPL", start="earliest"), limit=7)) == 7
    assert len(await collect(bus.quotes("AAPL", start="earliest"), within_s=1.0)) == 30
    assert len(await collect(bus.quotes("AAPL", start="earliest").batches(), limit=12)) == 12
    assert await collect(iter([[1, 2], 3]), limit=2) == [1, 2]
    assert await collect([]) == []


def test_what_is_no_such_thing_is_refused_with_the_remedy(bus: Bus) -> None:
    """An iteration that was not collected, a number, a field that no column can hold."""

    class Odd(msgspec.Struct):
        what: dict[str, int]

    with pytest.raises(TypeError, match="await collect"):
        to_pandas(bus.quotes("AAPL"))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a int is no quote"):
        to_polars([5])
    with pytest.raises(TypeError, match="stands among"):
        to_arrow([5], of=Quote)
    with pytest.raises(TypeError, match=r"Odd\.what"):
        to_arrow([], of=Odd)
    with pytest.raises(TypeError, match="has no columns"):
        to_arrow([], of=int)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "package", "extra"),
    [(to_pandas, "pandas", "pandas"), (to_polars, "polars", "polars"), (to_arrow, "pyarrow", "arrow")],
)
def test_a_package_that_is_missing_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, make: Callable[..., Any], package: str, extra: str
) -> None:
    """Only the call that needs it fails."""
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] == package:
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ExtraMissing, match=rf'{package} is needed .* "quotebus\[{extra}\]"') as caught:
        make([])
    assert isinstance(caught.value, BusError)
    assert (caught.value.package, caught.value.extra) == (package, extra)


@pytest.mark.fault("Q10")
@pytest.mark.keeps_open("polars keeps its threads and what they wait on")
@pytest.mark.parametrize("make", [to_pandas, to_polars, to_arrow])
def test_what_a_column_cannot_hold_is_null_and_costs_no_other_row(
    make: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A time beyond the year 2262, of whoever made the quote, and a count beyond 64 bits; the log says how many."""
    times = [T0_NS, 2**63, 10**23, -(2**63), T0_NS + 1]
    quotes = [Quote("AAPL", None, 1.0, 1, "V", 2.0, 1, "V", None, None, t, 2**60) for t in times]
    frame = make(quotes)
    assert len(frame) == len(times)

    def nulls(column: Any) -> int:
        if make is to_pandas:
            return int(column.isna().sum())
        count: Any = column.null_count
        return int(count() if make is to_polars else count)

    assert nulls(frame["time"]) == 3
    assert nulls(frame["bid_price"]) == 0
    assert "3 of 5 values of time are null" in caplog.text
    gaps = [Gap(symbol="A", id=None, from_ns=T0_NS, to_ns=10**30, reason="x", missing=n) for n in (5, 2**64)]
    frame = make(gaps, of=Gap)
    assert (nulls(frame["to"]), nulls(frame["missing"]), nulls(frame["from"])) == (2, 1, 0)
