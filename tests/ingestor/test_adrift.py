"""For how long the vendor's set has differed from what was asked."""

import pytest

from ingestor.feed.codes import CODES
from ingestor.subscriptions.adrift import Adrift
from ingestor.subscriptions.book import SubscriptionBook
from ingestor.subscriptions.desired import Desired
from wire import Symbol


def wanting(*symbols: str) -> SubscriptionBook:
    """A connected book with these wishes."""
    book = SubscriptionBook()
    book.connected()
    book.desire(Desired(tuple(Symbol(symbol) for symbol in symbols)))
    return book


@pytest.mark.fault("S33")
def test_the_age_counts_connected_time_across_sessions() -> None:
    """A session that gets no further does not begin the count anew, and a pause does not count."""
    book, adrift = wanting("AAPL"), Adrift()
    for second in range(11):
        adrift.look(float(second), book, 1, connected=True)
    assert adrift.age_s == 10
    book.disconnected()
    for second in range(11, 100):
        adrift.look(float(second), book, 2, connected=False)
    book.connected()
    for second in range(100, 106):
        adrift.look(float(second), book, 3, connected=True)
    assert adrift.age_s == 15


def test_progress_and_agreement_end_it() -> None:
    """Ten thousand symbols take their time; what counts is that nothing moves."""
    book, adrift = wanting("AAPL", "MSFT"), Adrift()
    adrift.look(0.0, book, 1, connected=True)
    assert adrift.look(5.0, book, 1, connected=True) == 5
    change = book.next_change(5.0)
    book.confirm(frozenset({"AAPL"}), change, 6.0)
    assert adrift.look(6.0, book, 2, connected=True) == 0
    assert adrift.look(9.0, book, 2, connected=True) == 3
    book.confirm(frozenset({"AAPL", "MSFT"}), book.next_change(9.0), 9.0)
    assert adrift.look(10.0, book, 3, connected=True) == 0
    assert adrift.look(99.0, book, 3, connected=True) == 0


def test_what_was_refused_is_no_difference() -> None:
    """A symbol that the vendor will not have is settled."""
    book, adrift = wanting("NOPE"), Adrift()
    adrift.look(0.0, book, 1, connected=True)
    change = book.next_change(0.0)
    assert change is not None
    book.refuse(change, CODES[400], 1.0)
    assert adrift.look(60.0, book, 2, connected=True) == 0
