"""Which columns a frame has, of which kind, and what stands in them.

Decides names, kinds and order, from the type alone: an empty frame has the same columns as a full one. Must never
know a frame library.

| quotes | kind | | gaps | kind |
|---|---|---|---|---|
| `symbol` | text | | `symbol` | text |
| `time` | time | | `from` | time |
| `received` | time | | `to` | time |
| `bid_price`, `bid_size` | number | | `reason` | text |
| `bid_exchange` | text | | `missing` | integer |
| `ask_price`, `ask_size` | number | | `epoch` | integer |
| `ask_exchange` | text | | `id` | text |
| `conditions` | list of text | | | |
| `tape`, `id` | text | | | |

Any other msgspec Struct, such as a bar, has a column for each field, in its order; `time_ns` becomes `time`, and so
does every whole number whose name ends with `_ns`. Times are nanoseconds since the epoch, UTC. What is None is
null; a price of a side without an active quote, for instance.
"""

import logging
import types
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from operator import attrgetter
from typing import Any, Final, NamedTuple, Union, get_args, get_origin

import msgspec

from wire import Gap, Quote
from wire.values import MAX_TIME_NS, MIN_TIME_NS

_log = logging.getLogger(__name__)


class Kind(Enum):
    """What stands in a column; each may be null."""

    TEXT = "text"
    TIME = "time"
    """Nanoseconds since the epoch, UTC."""
    NUMBER = "number"
    """A float64, exact for whole numbers up to 2**53."""
    INTEGER = "integer"
    """An int64."""
    FLAG = "flag"
    TEXTS = "list of text"


_LEAST: Final = {Kind.TIME: MIN_TIME_NS + 1, Kind.INTEGER: MIN_TIME_NS}
"""What 64 bits hold at least; numpy reads the smallest number as no time."""


class Column(NamedTuple):
    """One column: `read` gives the values of all rows at once, as None, str, int, float, bool or a tuple of str."""

    name: str
    kind: Kind
    read: Callable[[Sequence[Any]], list[Any]]

    def fitting(self, rows: Sequence[Any]) -> list[Any]:
        """The same, with None for what the column cannot hold: an odd one must not cost all the others."""
        values = self.read(rows)
        if self.kind not in _LEAST:
            return values
        least, most = _LEAST[self.kind], MAX_TIME_NS
        present = [value for value in values if value is not None]
        if not present or (min(present) >= least and max(present) <= most):
            return values
        fitting = [value if value is None or least <= value <= most else None for value in values]
        lost = len(present) - (len(fitting) - fitting.count(None))
        _log.warning(
            "%d of %d values of %s are null in the frame: 64 bits do not hold them",
            lost,
            len(values),
            self.name,
        )
        return fitting


def _field(name: str, kind: Kind, field: str | None = None) -> Column:
    get = attrgetter(field or name)
    return Column(name, kind, lambda rows: list(map(get, rows)))


def _received(rows: Sequence[Quote]) -> list[int | None]:
    return [
        None if row.receive_delay_us is None else row.time_ns + row.receive_delay_us * 1000 for row in rows
    ]


QUOTE_COLUMNS: Final = (
    _field("symbol", Kind.TEXT),
    _field("time", Kind.TIME, "time_ns"),
    Column("received", Kind.TIME, _received),
    _field("bid_price", Kind.NUMBER),
    _field("bid_size", Kind.NUMBER),
    _field("bid_exchange", Kind.TEXT),
    _field("ask_price", Kind.NUMBER),
    _field("ask_size", Kind.NUMBER),
    _field("ask_exchange", Kind.TEXT),
    _field("conditions", Kind.TEXTS),
    _field("tape", Kind.TEXT),
    _field("id", Kind.TEXT),
)
GAP_COLUMNS: Final = (
    _field("symbol", Kind.TEXT),
    _field("from", Kind.TIME, "from_ns"),
    _field("to", Kind.TIME, "to_ns"),
    _field("reason", Kind.TEXT),
    _field("missing", Kind.INTEGER),
    _field("epoch", Kind.INTEGER),
    _field("id", Kind.TEXT),
)


def columns_of(kind: Any) -> tuple[Column, ...]:
    """The columns for items of this type; `TypeError` for one that has none."""
    if kind is Quote:
        return QUOTE_COLUMNS
    if kind is Gap:
        return GAP_COLUMNS
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        raise TypeError(
            f"of={kind!r} has no columns: pass Quote, Gap, or another msgspec.Struct, such as the type of a bar"
        )
    return tuple(_of_field(field.name, field.type, kind.__name__) for field in msgspec.structs.fields(kind))


def distinct(values: Sequence[Sequence[str] | None]) -> tuple[list[list[str] | None], list[int]]:
    """The different lists of text among these, and where among them each value is.

    Conditions repeat, and a list costs a frame library a hundred times what a number does.
    """
    places: dict[tuple[str, ...] | None, int] = {}
    codes = [places.setdefault(None if value is None else tuple(value), len(places)) for value in values]
    return [None if value is None else list(value) for value in places], codes


def pick(items: Iterable[Any], kind: type[msgspec.Struct] | None) -> tuple[type[msgspec.Struct], list[Any]]:
    """The items of one type, and that type: by default that of the first which is no gap, or Quote.

    Raises `TypeError` for an item that is neither of that type nor a quote or gap.
    """
    found = list(items)
    if kind is None:
        first = next((item for item in found if not isinstance(item, Gap)), None)
        if first is not None and not isinstance(first, msgspec.Struct):
            raise TypeError(f"a {type(first).__name__} is no quote, gap or bar: pass those")
        kind = Quote if first is None else type(first)
    rows = [item for item in found if isinstance(item, kind)]
    if len(rows) < len(found):
        odd = next((item for item in found if not isinstance(item, (kind, Quote, Gap))), None)
        if odd is not None:
            raise TypeError(f"a {type(odd).__name__} stands among items of type {kind.__name__}: take it out")
    return kind, rows


def _of_field(name: str, annotation: Any, owner: str) -> Column:
    is_union = get_origin(annotation) in (Union, types.UnionType)
    options = get_args(annotation) if is_union else (annotation,)
    inner = {option for option in options if option is not type(None)}
    if inner == {str}:
        return _field(name, Kind.TEXT)
    if inner == {bool}:
        return _field(name, Kind.FLAG)
    if inner == {int}:
        if name.endswith("_ns"):
            return _field(name.removesuffix("_ns"), Kind.TIME, name)
        return _field(name, Kind.INTEGER)
    if inner and inner <= {int, float}:
        return _field(name, Kind.NUMBER)
    if len(inner) == 1 and get_args(*inner) in ((str, ...), (str,)):
        return _field(name, Kind.TEXTS)
    raise TypeError(f"{owner}.{name} is of a type that no column can hold: {annotation}")
