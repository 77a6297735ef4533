"""What may stand as a symbol or a namespace, by the table."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire import BadNamespace, BadSymbol, Keyspace, parse_symbol


@pytest.mark.parametrize(
    "name", ["AAPL", "A", "BRK.B", "BAC.PRB", "ACHR.WS", "AACT.U", "X1", "0", "A" * 20, b"MSFT"]
)
def test_symbols_are_kept_as_they_are(name: str | bytes) -> None:
    """Letters, digits, and single dots between them."""
    assert parse_symbol(name) == (name.decode() if isinstance(name, bytes) else name)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "empty"),
        (b"", "empty"),
        ("aapl", "lower case; did you mean AAPL"),
        ("brk.b", "did you mean BRK.B"),
        (" AAPL", "has spaces around it; did you mean AAPL"),
        ("AAPL\n", "has spaces around it; did you mean AAPL"),
        ("AA PL", "several names in one"),
        ("AAPL\u200b", r"U\+200B"),
        ("АAPL", r"U\+0410"),
        ("🚀", r"U\+1F680"),
        ("AAPL\x00", r"U\+0000"),
        ("ﬀ", r"U\+FB00"),
        ("*", "wildcards"),
        ("A*", "wildcards"),
        ("A" * 21, "21 characters long"),
        ("A" * 5_000, "5000 characters long"),
        (b"A" * 5_000, "5000 bytes long"),
        (b"\xff\xfe", "invalid UTF-8"),
        ("A..B", "dots only stand between"),
        (".A", r"dots only stand between letters or digits; did you mean A\?"),
        ("A-", r"did you mean A\?"),
        ("A:B", r"U\+003A"),
        ("A{B}", r"U\+007B"),
        ("BRK/B", r"did you mean BRK\.B\?"),
        ("A/?", r"U\+002F"),
    ],
)
def test_a_bad_symbol_is_refused_with_the_reason(name: str | bytes, why: str) -> None:
    """And with what was probably meant, where that is clear."""
    with pytest.raises(BadSymbol, match=why) as caught:
        parse_symbol(name)
    assert len(str(caught.value)) < 200


OPTION = "option contract on {}, which this feed of US stocks does not carry"
CRYPTO = r"crypto pair \({}\), which this feed of US stocks does not carry"


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("BTCUSD", CRYPTO.format("BTC/USD")),
        ("btcusd", CRYPTO.format("BTC/USD")),
        ("BTC/USD", CRYPTO.format("BTC/USD")),
        ("BTC-USD", CRYPTO.format("BTC/USD")),
        ("BTC.USD", CRYPTO.format("BTC/USD")),
        ("DOGEUSDT", CRYPTO.format("DOGE/USDT")),
        ("ETHBTC", CRYPTO.format("ETH/BTC")),
        ("SOL/EUR", CRYPTO.format("SOL/EUR")),
        ("X:BTCUSD", CRYPTO.format("BTC/USD")),
        ("EURUSD", "currency pair"),
        ("EUR/USD", "currency pair"),
        ("EURUSD=X", "currency pair"),
        ("JPY=X", "currency pair"),
        ("AAPL241220C00150000", OPTION.format("AAPL")),
        ("AAPL  241220C00150000", OPTION.format("AAPL")),
        ("aapl241220p00150000", OPTION.format("AAPL")),
        ("O:AAPL241220C00150000", OPTION.format("AAPL")),
        (".SPY241220P500.5", OPTION.format("SPY")),
        ("ES=F", "futures contract"),
        ("/ESZ4", "futures contract"),
        ("ES1!", "futures contract"),
        ("^GSPC", "an index"),
        ("I:SPX", "an index"),
        ("US0378331005", "an ISIN"),
    ],
)
@pytest.mark.fault("S51")
def test_a_name_of_something_else_is_told_as_what_it_is(name: str, what: str) -> None:
    """And not as a misspelt stock, in capitals or not."""
    with pytest.raises(BadSymbol, match=what) as caught:
        parse_symbol(name)
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "symbol", "odd"),
    [
        ("BRK-B", "BRK.B", "a hyphen where Alpaca writes a dot"),
        ("brk-b", "BRK.B", "a hyphen"),
        ("BRK\u2013B", "BRK.B", "a hyphen"),
        ("BRK/B", "BRK.B", "a slash"),
        ("BRK B", "BRK.B", "a blank"),
        ("BRK_B", "BRK.B", "an underscore"),
        ("BAC-PB", "BAC.PRB", "a hyphen"),
        ("BAC-PRB", "BAC.PRB", "a hyphen"),
        ("BAC PRB", "BAC.PRB", "a blank"),
        ("BAC^B", "BAC.PRB", "a caret"),
        ("ACHR-WT", "ACHR.WS", "a hyphen"),
        ("ACHR/WS", "ACHR.WS", "a slash"),
        ("ACHR+", "ACHR.WS", "a plus sign"),
        ("AACT-UN", "AACT.U", "a hyphen"),
        ("AACT=", "AACT.U", "an equals sign"),
        ("$AAPL", "AAPL", r"a \$ before"),
        ("$brk-b", "BRK.B", "a hyphen"),
        ("AAPL.US", "AAPL", "another vendor's suffix"),
        ("AAPL:US", "AAPL", "another vendor's suffix"),
        ("AAPL US Equity", "AAPL", "another vendor's suffix"),
        ("BRK.B.US", "BRK.B", "another vendor's suffix"),
        ("NASDAQ:AAPL", "AAPL", "an exchange before"),
        ("NYSE:BRK.B", "BRK.B", "an exchange before"),
        ("'AAPL'", "AAPL", "quotation marks"),
        ("\u201caapl\u201d", "AAPL", "quotation marks"),
        ("AAPL,", "AAPL", "odd characters around"),
    ],
)
def test_the_spelling_of_others_is_answered_with_alpacas(name: str, symbol: str, odd: str) -> None:
    """The symbol that is proposed is one, so that following the hint ends the matter."""
    with pytest.raises(BadSymbol, match=rf"^{odd}.*; did you mean {re.escape(symbol)}\?$"):
        parse_symbol(name)
    assert parse_symbol(symbol) == symbol


@pytest.mark.parametrize("name", ["AAPL,MSFT", "AAPL MSFT", "AAPL; MSFT", "AAPL BRK.B\n"])
def test_several_names_in_one_are_told_as_such(name: str) -> None:
    """A list that nobody has split is the likeliest of all mistakes of a script."""
    with pytest.raises(BadSymbol, match="several names in one: pass each symbol by itself"):
        parse_symbol(name)


@pytest.mark.parametrize(
    "name",
    ["BTC", "ETH", "USD", "EUR", "LINK", "DOT", "UNI", "SOL", "C", "P", "US", "ES", "GBTC", "FAKEPACA"],
)
def test_stocks_that_are_called_like_something_else_are_symbols(name: str) -> None:
    """Funds and companies have these."""
    assert parse_symbol(name) == name


@given(st.from_regex(r"[A-Z]{1,5}(\.(A|B|C|U|WS|RT|WI|PR[A-Z]))?", fullmatch=True))
def test_nothing_that_a_us_stock_may_be_called_is_refused(name: str) -> None:
    """One to five letters, and a class or kind behind a dot."""
    assert parse_symbol(name) == name


@given(st.text(max_size=40) | st.binary(max_size=100))
def test_whatever_passes_is_safe_in_a_key(name: str | bytes) -> None:
    """Nothing else than a refusal or a plain name comes out."""
    try:
        symbol = parse_symbol(name)
    except BadSymbol as error:
        refusal: str | None = str(error)
    else:
        refusal = None
    if refusal is not None:
        assert refusal.isprintable()
        return
    assert symbol.isascii()
    assert symbol.replace(".", "").isalnum()
    assert Keyspace().symbol_of(Keyspace().stream(symbol)) == symbol


@pytest.mark.parametrize("name", ["quotes", "a", "prod:quotes", "q_1.2-x", "A" * 64])
def test_a_namespace_begins_every_key(name: str) -> None:
    """No key of the contract lies outside."""
    keys = Keyspace(name)
    names = [getattr(keys, slot) for slot in Keyspace.__slots__] + [keys.stream("AAPL")]
    assert all(key.startswith(f"{name}:") for key in names if key != name)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "name", ["", " ", "quotes ", "a*", "a?", "a[b]", "{a}", "a\n", "ä", "A" * 65, "a/b", "a b"]
)
def test_a_bad_namespace_is_refused(name: str) -> None:
    """What globs, ACL rules or hash tags would read as their own stays out."""
    with pytest.raises(BadNamespace, match="is not usable"):
        Keyspace(name)


def test_a_key_of_another_namespace_has_no_symbol() -> None:
    """Only streams of this namespace do."""
    with pytest.raises(ValueError, match="not a quote stream"):
        Keyspace("a").symbol_of("b:stream:AAPL")
