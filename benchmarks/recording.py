"""The quotes that every contestant gets: a made-up stretch of a market, encoded before the clock starts.

Decides symbols, values, times and frame sizes. Must never know who reads them. Symbols come in random order, either
all equally active (the worst case for anything that works per symbol and batch) or by rank as in a real market.
"""

import random
import time
from collections.abc import Iterator, Sequence
from typing import Final, Literal, TypeAlias

from simulator.frames import SimQuote, encode_items, join_items

SENTINEL: Final = "ZZEND"
"""The last quote of every recording has this symbol, which has no others: its arrival is the end."""
STEP_NS: Final = 1_000
MAX_SYMBOLS: Final = 26**4

Activity: TypeAlias = Literal["equal", "ranked"]


def symbol_names(count: int) -> list[str]:
    """So many names of four letters, scattered over the alphabet."""
    if not 0 < count <= MAX_SYMBOLS:
        raise ValueError(f"{count} symbols cannot be named with four letters")
    # A stride that shares no factor with 26 visits every name once.
    return [_name(i * 17_573 % MAX_SYMBOLS) for i in range(count)]


def make_quotes(count: int, symbols: Sequence[str], first_ns: int, activity: Activity) -> list[SimQuote]:
    """`count` quotes, a microsecond apart; the last one is the sentinel's."""
    rng = random.Random(count)
    weights = [1 / rank for rank in range(1, len(symbols) + 1)] if activity == "ranked" else None
    prices = [round(rng.uniform(5, 900), 2) for _ in range(997)]
    sizes = [rng.randrange(1, 12) * 100 for _ in range(991)]
    quotes = []
    for i, symbol in enumerate(rng.choices(symbols, weights, k=count - 1)):
        bid = prices[i % 997]
        # fmt: off
        quotes.append(SimQuote(
            symbol, first_ns + i * STEP_NS, bid, sizes[i % 991], round(bid + 0.01, 2), sizes[i % 983], "V", "N",
        ))
        # fmt: on
    quotes.append(SimQuote(SENTINEL, first_ns + (count - 1) * STEP_NS, 1.0, 100, 1.01, 100))
    return quotes


def encode_frames(quotes: Sequence[SimQuote], quotes_per_frame: int) -> Iterator[bytes]:
    """The msgpack frames, in order; the sentinel's quote goes alone."""
    items = encode_items(quotes, "msgpack")
    body = items[:-1]
    for start in range(0, len(body), quotes_per_frame):
        yield _binary(join_items(body[start : start + quotes_per_frame], "msgpack"))
    yield _binary(join_items(items[-1:], "msgpack"))


def first_ns_of(count: int, not_before_ns: int) -> int:
    """When a recording of this length begins, so that it ends about now and follows the one before."""
    return max(time.time_ns() - count * STEP_NS, not_before_ns)


def _name(number: int) -> str:
    letters = []
    for _ in range(4):
        number, letter = divmod(number, 26)
        letters.append(chr(65 + letter))
    return "".join(letters)


def _binary(frame: bytes | str) -> bytes:
    assert isinstance(frame, bytes)
    return frame
