"""The columns, handed to pandas, polars or Arrow, whichever is asked for and installed.

Decides which type of each library stands for a kind. Must never build a row: whole columns are converted at once.
"""

from collections.abc import AsyncIterable, Iterable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from consumers.analysis.columns import Column, Kind, columns_of, distinct, pick
from consumers.errors import ExtraMissing

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

_NAT: Final = -(2**63)
"""What numpy reads as no time."""


def to_pandas(items: Iterable[Any], *, of: type[msgspec.Struct] | None = None) -> "pd.DataFrame":
    """A DataFrame of the quotes, gaps or bars among these items, in their order; see `columns` for its columns.

    `of` names the type of the rows: `Quote`, `Gap`, or that of a bar. By default it is the type of the first item
    that is no gap, and `Quote` where there is none: name it for bars, so that an empty frame has their columns.
    Times are `datetime64[ns, UTC]`, numbers `float64` with NaN, whole numbers `Int64`, text `string`; conditions
    are tuples.

    A time outside the years 1677 to 2262, which no column can hold, is null, and so is a whole number beyond 64
    bits; the log says how many. Raises `ExtraMissing` without pandas, `TypeError` for items that are no such things
    or an async iteration.
    """
    try:
        import numpy as np
        import pandas as pd
    except ImportError as error:
        raise ExtraMissing("pandas", "to make a DataFrame", "pandas") from error
    columns, rows = _prepared(items, of)

    def series(column: Column) -> Any:
        values = column.fitting(rows)
        match column.kind:
            case Kind.TIME:
                whole = np.array([_NAT if value is None else value for value in values], dtype=np.int64)
                return pd.Series(whole.view("M8[ns]")).dt.tz_localize("UTC")
            case Kind.NUMBER:
                return pd.Series(np.array(values, dtype=np.float64))
            case Kind.TEXTS:
                return pd.Series(values, dtype=object)
            case kind:
                names = {Kind.TEXT: "string", Kind.INTEGER: "Int64", Kind.FLAG: "boolean"}
                return pd.Series(pd.array(values, dtype=names[kind]))

    return pd.DataFrame({column.name: series(column) for column in columns})


def to_polars(items: Iterable[Any], *, of: type[msgspec.Struct] | None = None) -> "pl.DataFrame":
    """The same as a polars DataFrame; times are `Datetime("ns", "UTC")`, what is missing is null.

    Raises `ExtraMissing` without polars, else as `to_pandas` does.
    """
    try:
        import polars as pl
    except ImportError as error:
        raise ExtraMissing("polars", "to make a polars frame", "polars") from error
    columns, rows = _prepared(items, of)
    types: dict[Kind, Any] = {
        Kind.TEXT: pl.String(),
        Kind.TIME: pl.Int64(),
        Kind.NUMBER: pl.Float64(),
        Kind.INTEGER: pl.Int64(),
        Kind.FLAG: pl.Boolean(),
        Kind.TEXTS: pl.List(pl.String()),
    }

    def series(column: Column) -> "pl.Series":
        values = column.fitting(rows)
        if column.kind is Kind.TEXTS:
            lists, codes = distinct(values)
            return pl.Series(column.name, lists, dtype=types[Kind.TEXTS]).gather(codes)
        if column.kind is Kind.NUMBER:
            # Whole numbers and others in one list.
            values = [None if value is None else float(value) for value in values]
        made = pl.Series(column.name, values, dtype=types[column.kind])
        return made.cast(pl.Datetime("ns", "UTC")) if column.kind is Kind.TIME else made

    return pl.DataFrame([series(column) for column in columns])


def to_arrow(items: Iterable[Any], *, of: type[msgspec.Struct] | None = None) -> "pa.Table":
    """The same as an Arrow table; times are `timestamp[ns, tz=UTC]`, what is missing is null.

    Raises `ExtraMissing` without pyarrow, else as `to_pandas` does.
    """
    try:
        import pyarrow as pa
    except ImportError as error:
        raise ExtraMissing("pyarrow", "to make an Arrow table", "arrow") from error
    columns, rows = _prepared(items, of)
    types = {
        Kind.TEXT: pa.string(),
        Kind.TIME: pa.timestamp("ns", tz="UTC"),
        Kind.NUMBER: pa.float64(),
        Kind.INTEGER: pa.int64(),
        Kind.FLAG: pa.bool_(),
        Kind.TEXTS: pa.list_(pa.string()),
    }
    schema = pa.schema([(column.name, types[column.kind]) for column in columns])

    def array(column: Column) -> Any:
        values = column.fitting(rows)
        if column.kind is Kind.TEXTS:
            lists, codes = distinct(values)
            return pa.array(lists, type=types[Kind.TEXTS]).take(pa.array(codes, type=pa.int64()))
        return pa.array(values, type=types[column.kind])

    arrays = [array(column) for column in columns]
    return pa.Table.from_arrays(arrays, schema=schema)


def _prepared(items: Any, of: type[msgspec.Struct] | None) -> tuple[tuple[Column, ...], list[Any]]:
    if isinstance(items, AsyncIterable):
        raise TypeError(
            f"a {type(items).__name__} is read asynchronously: pass `await collect(items)` instead, "
            "with a limit if it never ends"
        )
    columns = columns_of(of) if of is not None else None
    kind, rows = pick(items, of)
    return columns or columns_of(kind), rows
