"""A market that does not exist: plausible quotes for any number of symbols, the same ones for the same seed.

Decides names, prices, sizes, venues and who is busy. Must never know the time of day (the span is an argument),
who subscribed, or how a quote travels.
"""

import random
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Final
from zlib import crc32

from simulator.frames import SimQuote
from wire import parse_symbol

MAX_SYMBOLS: Final = 100_000
TEST_SYMBOL: Final = "FAKEPACA"
"""The one symbol of the vendor's test feed."""

_IN_LIFE: Final = (
    "AAPL MSFT NVDA AMZN GOOGL META TSLA AVGO BRK.B JPM GOOG LLY V UNH XOM MA COST HD PG WMT NFLX JNJ CRM BAC "
    "ORCL ABBV MRK CVX KO AMD PEP ADBE TMO LIN ACN MCD CSCO ABT WFC GE IBM DIS QCOM TXN CAT VZ INTU AMGN NOW "
    "PFE ISRG GS MS SPY QQQ IWM DIA PLTR SHOP UBER INTC MU BA NKE SBUX PYPL COIN HOOD SOFI F GM T C SCHW BLK "
    "AXP LOW RTX HON UNP UPS DE LMT MDT GILD BMY CVS MO PM SO DUK NEE D SLB OXY COP EOG FDX DAL UAL AAL CCL "
    "MAR ABNB BKNG SPOT SNAP PINS RBLX U NET DDOG SNOW CRWD PANW ZS OKTA MDB TEAM WDAY ROKU XLF XLE XLK XLV "
    "ARKK TLT GLD SLV USO HYG LQD EEM EFA VTI VOO VEA VWO BND AGG SMH SOXX XBI GME AMC RIVN LCID NIO BABA JD"
)
_WELL_KNOWN: Final = tuple(_IN_LIFE.split())

_AT_NASDAQ: Final = (
    "AAPL MSFT NVDA AMZN GOOGL GOOG META TSLA AVGO COST NFLX PEP ADBE AMD CSCO TXN INTU AMGN QCOM "
    "ISRG INTC MU SBUX PYPL COIN HOOD GILD QQQ LIN HON MAR ABNB BKNG PLTR DDOG CRWD PANW ZS OKTA MDB "
    "TEAM WDAY ROKU UAL AAL RIVN LCID BABA JD TLT BND SMH SOXX"
)
_AT_ARCA: Final = "SPY IWM DIA XLF XLE XLK XLV GLD SLV USO HYG LQD EEM EFA VTI VOO VEA VWO AGG XBI"
_HOME_TAPES: Final = dict.fromkeys(_AT_NASDAQ.split(), "C") | dict.fromkeys(_AT_ARCA.split(), "B")

_PRICES: Final = (
    "AAPL 230 MSFT 420 NVDA 140 AMZN 205 GOOGL 175 META 560 TSLA 340 AVGO 170 BRK.B 470 JPM 245 GOOG 177 LLY 760 "
    "V 310 UNH 590 XOM 120 MA 520 COST 930 HD 410 PG 170 WMT 88 NFLX 880 JNJ 155 SPY 590 QQQ 500"
)
_ABOUT_USD: Final = {name: int(price) for name, price in zip(*[iter(_PRICES.split())] * 2, strict=True)}
"""Where a walk begins for the names that everybody looks at first; the others begin anywhere."""

_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_MOVES: Final = (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, -1, -1, -1)
_SPREADS: Final = (1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 5)
_SIZES: Final = (100, 100, 100, 100, 200, 200, 200, 300, 300, 400, 500, 600, 800, 1000, 40, 1500)
_VENUES: Final = ("Q", "P", "K", "Z", "V", "N", "Y", "J")
_TAPES: Final = ("A", "B", "C", "C")
_REGULAR: Final = ("R",)
_LOWEST_CENTS: Final = 100


def plausible_symbols(count: int, seed: int = 0) -> tuple[str, ...]:
    """`count` distinct symbols, the well-known first; `ValueError` beyond 0 to 100 000."""
    if not 0 <= count <= MAX_SYMBOLS:
        raise ValueError(f"{count} symbols are not possible: ask for 0 to {MAX_SYMBOLS}")
    names = dict.fromkeys(_WELL_KNOWN[:count])
    rng = random.Random(seed)
    while len(names) < count:
        name = "".join(rng.choices(_LETTERS, k=rng.choice((3, 4, 4, 4))))
        if rng.random() < 0.02:
            name += rng.choice((".A", ".B", ".PRA", ".WS"))
        names[parse_symbol(name)] = None
    return tuple(names)


class Book:
    """Where a symbol's walk stands: its bid in cents, how wide its spreads are, and its tape."""

    __slots__ = ("bid_cents", "spread_unit", "symbol", "tape")

    def __init__(self, symbol: str, seed: int) -> None:
        digest = crc32(f"{seed}:{symbol}".encode())
        self.symbol = symbol
        # Spread over two decades, so that cheap and dear stocks both occur.
        anywhere = int(500 * 120 ** ((digest & 0xFFFF) / 0xFFFF))
        self.bid_cents = _ABOUT_USD[symbol] * 100 + digest % 300 if symbol in _ABOUT_USD else anywhere
        self.spread_unit = 1 + self.bid_cents // 20_000
        self.tape = _HOME_TAPES.get(symbol) or _TAPES[digest >> 16 & 3]


class Activity:
    """Which of some symbols is busy: the k-th of them as busy as 1/k, in the order of the market's list."""

    __slots__ = ("_books", "_cumulative")

    def __init__(self, books: Sequence[Book]) -> None:
        self._books = books
        self._cumulative = list(accumulate(1 / (rank + 1) for rank in range(len(books))))

    def __len__(self) -> int:
        return len(self._books)

    def choose(self, rng: random.Random, count: int) -> list[Book]:
        """Whose turn it is, `count` times."""
        books, cumulative = self._books, self._cumulative
        total, last, draw = cumulative[-1], len(books) - 1, rng.random
        return [books[min(bisect_right(cumulative, draw() * total), last)] for _ in range(count)]


class Market:
    """Random walks on a grid of one cent, one per symbol.

    The same symbols, seed and calls give the same quotes. `ValueError` or `wire.BadSymbol` when the list is too
    long or has a name that is no symbol.
    """

    def __init__(self, symbols: Iterable[str], seed: int = 0) -> None:
        self.symbols: Final = tuple(dict.fromkeys(parse_symbol(symbol) for symbol in symbols))
        if len(self.symbols) > MAX_SYMBOLS:
            raise ValueError(f"{len(self.symbols)} symbols are too many: at most {MAX_SYMBOLS}")
        self._rank: dict[str, int] = {symbol: rank for rank, symbol in enumerate(self.symbols)}
        self._seed = seed
        self._rng = random.Random(seed)
        self._books: dict[str, Book] = {}

    def activity(self, wanted: Iterable[str] | None) -> Activity:
        """The weights over the wanted symbols; None wants all of the list.

        A symbol that is not on the list is traded too, after those that are: whoever subscribes a name of their
        own wants to see it move.
        """
        if wanted is None:
            chosen: Sequence[str] = self.symbols
        else:
            rank, last = self._rank, len(self._rank)
            chosen = sorted(set(wanted), key=lambda symbol: (rank.get(symbol, last), symbol))
        return Activity([self._book(symbol) for symbol in chosen])

    def quotes(self, activity: Activity, count: int, from_ns: int, to_ns: int) -> list[SimQuote]:
        """`count` quotes with times from `from_ns` up to, not including, `to_ns`; none when nobody is active."""
        if not len(activity) or count <= 0:
            return []
        rng = self._rng
        bits_of = rng.getrandbits
        step = max(to_ns - from_ns, 0) / count
        made: list[SimQuote] = []
        for index, book in enumerate(activity.choose(rng, count)):
            bits = bits_of(32)
            bid = book.bid_cents + _MOVES[bits & 15]
            if bid < _LOWEST_CENTS:
                bid = _LOWEST_CENTS
            book.bid_cents = bid
            ask = bid + _SPREADS[bits >> 4 & 15] * book.spread_unit
            made.append(
                SimQuote(
                    book.symbol,
                    from_ns + int(index * step),
                    bid / 100,
                    _SIZES[bits >> 8 & 15],
                    ask / 100,
                    _SIZES[bits >> 12 & 15],
                    _VENUES[bits >> 16 & 7],
                    _VENUES[bits >> 19 & 7],
                    _REGULAR,
                    book.tape,
                )
            )
        return made

    def _book(self, symbol: str) -> Book:
        book = self._books.get(symbol)
        if book is None:
            book = self._books[symbol] = Book(symbol, self._seed)
        return book
