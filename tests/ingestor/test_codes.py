"""The vendor's error codes and what follows from each."""

import pytest

from ingestor.feed.codes import CODES, Remedy, code_of

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
