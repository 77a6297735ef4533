"""The vendor's error codes and what follows from each."""

import pytest

from ingestor.feed.codes import CODES, MAX_WORDS, Remedy, code_of, shown, why_ended, why_refused

REMEDIES = {
    400: Remedy.DIVIDE,
    401: Remedy.RECONNECT,
    402: Remedy.REJECTED,
    403: Remedy.IGNORE,
    404: Remedy.RECONNECT,
    405: Remedy.LIMIT,
    406: Remedy.SLOT_TAKEN,
    407: Remedy.RECONNECT,
    408: Remedy.REJECTED,
    409: Remedy.REJECTED,
    410: Remedy.REJECTED,
    411: Remedy.REJECTED,
    412: Remedy.REJECTED,
    413: Remedy.DIVIDE,
    500: Remedy.RECONNECT,
}


@pytest.mark.parametrize(("number", "remedy"), REMEDIES.items())
def test_every_code_has_its_remedy(number: int, remedy: Remedy) -> None:
    """And a meaning in words of ours."""
    code = code_of(number)
    assert (code.number, code.remedy) == (number, remedy)
    assert code.meaning


def test_the_table_has_no_other_code() -> None:
    """So that a new row brings a line here."""
    assert set(CODES) == set(REMEDIES)


@pytest.mark.parametrize("number", [0, -1, 1, 399, 414, 599, 2**63])
@pytest.mark.fault("S16")
def test_an_unknown_code_costs_the_connection_and_nothing_more(number: int) -> None:
    """Whatever the number, which is shown."""
    code = code_of(number)
    assert code.remedy is Remedy.RECONNECT
    assert str(number) in code.meaning


def test_the_vendor_s_words_are_shown_short_and_on_one_line() -> None:
    """They stand in a reason that operators read, whatever the vendor put into them."""
    assert shown("no such\r\n\x1b[31msymbol\u202e\ud800") == "no such [31msymbol"
    assert len(shown("x" * 10_000)) == MAX_WORDS
    assert why_refused(code_of(414), "symbol unknown") == (
        'the vendor refused it: unknown error code 414 ("symbol unknown")'
    )
    assert why_refused(code_of(400), "invalid syntax") == (
        'the vendor refused it: 400 malformed message or malformed symbol ("invalid syntax")'
    )
    assert why_ended(code_of(500), "internal error") == "an error at the vendor"
    assert why_ended(code_of(500), "maintenance") == 'an error at the vendor ("maintenance")'
