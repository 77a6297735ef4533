"""What may stand as a symbol or a namespace, by the table."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire import BadNamespace, BadSymbol, Keyspace, parse_symbol


@pytest.mark.parametrize("name", ["AAPL", "A", "BRK.B", "BAC.PRB", "ABC-D", "X1", "0", "A" * 20, b"MSFT"])
def test_symbols_are_kept_as_they_are(name: str | bytes) -> None:
    """Letters, digits, and single dots or hyphens between them."""
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
        ("AA PL", r"U\+0020"),
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
        ("A..B", "dots and hyphens"),
        (".A", "dots and hyphens"),
        ("A-", "dots and hyphens"),
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
    assert symbol.replace(".", "").replace("-", "").isalnum()
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
