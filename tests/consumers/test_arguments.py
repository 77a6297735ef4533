"""A number that cannot be used is refused by the call that was given it, by name, whatever was given instead."""

import math
from collections.abc import Callable
from typing import Any, Final

import pytest

from consumers import BadNamespace, Bus, Reconnect, connect, sync
from consumers.alpaca.stream import StockDataStream
from consumers.arguments import check_seconds, is_count, is_number
from consumers.rest.client import AlpacaRest
from consumers.rest.retry import Retry
from consumers.service import MarketDataService
from consumers.testing import Publisher
from consumers.testing.pace import Pace
from simulator.redis_server import RedisServer

Call = Callable[[Any], Any]
NUMBERS: Final[dict[str, tuple[str, Call]]] = {
    "connect": ("timeout_s", lambda given: connect(timeout_s=given)),
    "the twin": ("timeout_s", lambda given: sync.connect(timeout_s=given)),
    "a service's answers": ("max_age_s", lambda given: MarketDataService(max_age_s=given)),
    "a service's callbacks": (
        "callback_timeout_s",
        lambda given: MarketDataService(callback_timeout_s=given),
    ),
    "a service's replies": ("timeout_s", lambda given: MarketDataService(timeout_s=given)),
    "a service's calls": ("calls_per_minute", lambda given: MarketDataService(calls_per_minute=given)),
    "a service's stream": (
        "max_age_s",
        lambda given: MarketDataService().stream_quotes("AAPL", max_age_s=given),
    ),
    "the drop-in": ("data_timeout", lambda given: StockDataStream("key", "secret", data_timeout=given)),
    "REST": ("timeout_s", lambda given: AlpacaRest("key", "secret", timeout_s=given)),
    "first wait": ("first_delay_s", lambda given: Reconnect(first_delay_s=given)),
    "longest wait": ("max_delay_s", lambda given: Reconnect(max_delay_s=given)),
    "factor": ("factor", lambda given: Reconnect(factor=given)),
    "jitter": ("jitter", lambda given: Reconnect(jitter=given)),
    "attempts": ("attempts", lambda given: Reconnect(attempts=given)),
    "attempts of a call": ("attempts", lambda given: Retry(attempts=given)),
    "deadline of a call": ("deadline_s", lambda given: Retry(deadline_s=given)),
    "a publisher's streams": ("maxlen", lambda given: Publisher("redis://127.0.0.1", maxlen=given)),
    "a replay's speed": ("speed", lambda given: Pace(given, "fresh")),
}
NO_NUMBERS: Final[tuple[object, ...]] = ("5", "", math.nan, True, [], -1, 1j)
ENORMOUS: Final = 10**400
"""More than a float holds."""
UNBOUNDED: Final = {
    "attempts",
    "calls_per_minute",
    "maxlen",
    "data_timeout",
    "max_age_s",
    "callback_timeout_s",
}


@pytest.mark.parametrize("given", NO_NUMBERS, ids=repr)
@pytest.mark.parametrize("where", NUMBERS)
def test_what_is_no_usable_number_is_refused_by_name(where: str, given: object) -> None:
    """No `TypeError` about an operator, and nothing that fails only later."""
    name, call = NUMBERS[where]
    with pytest.raises(ValueError, match=name):
        call(given)


@pytest.mark.parametrize("given", NO_NUMBERS, ids=repr)
async def test_an_opened_bus_refuses_them_as_well(bus: Bus, given: object) -> None:
    """Each of its ways of reading, before it reads."""
    calls: list[tuple[str, Call]] = [
        ("max_age_s", lambda given: bus.quotes("AAPL", max_age_s=given)),
        ("claim_after_s", lambda given: bus.group("g", "AAPL", consumer="c", claim_after_s=given)),
        ("prefetch", lambda given: bus.group("g", "AAPL", consumer="c", prefetch=given)),
    ]
    for name, call in calls:
        with pytest.raises(ValueError, match=name):
            call(given)
    with pytest.raises(ValueError, match="quiet_after_s"):
        await bus.quality("AAPL", quiet_after_s=given)  # type: ignore[arg-type]


def test_a_time_to_wait_for_an_item_is_a_number() -> None:
    """Below 0 it is one all the same: what remains of a time that is over."""
    with (
        RedisServer() as server,
        sync.connect(server.url) as bus,
        bus.quotes("AAPL", lease=False) as stream,
    ):
        refused: tuple[Any, ...] = ("1", True, [])
        for given in refused:
            with pytest.raises(ValueError, match="timeout_s"):
                stream.get(timeout_s=given)
        assert stream.get(timeout_s=-0.1) is None


async def test_the_same_holds_for_an_item_of_a_loop(bus: Bus) -> None:
    """Whichever bus it is."""
    stream = bus.quotes("AAPL", lease=False)
    refused: tuple[Any, ...] = ("1", True, [], math.nan, ENORMOUS)
    for given in refused:
        with pytest.raises(ValueError, match="timeout_s"):
            await stream.get(timeout_s=given)
    assert await stream.get(timeout_s=-0.1) is None
    await stream.aclose()


@pytest.mark.parametrize("where", NUMBERS)
def test_a_number_that_no_float_holds_is_refused_by_name_or_used(where: str) -> None:
    """No `OverflowError`; a count may be as large as it likes."""
    name, call = NUMBERS[where]
    said = None
    try:
        call(ENORMOUS)
    except ValueError as error:
        said = str(error)
    assert name in UNBOUNDED if said is None else name in said


async def test_what_is_no_quote_no_key_and_no_name_is_refused(bus: Bus) -> None:
    """By what it is; a list given by mistake is the likely case."""
    given: Any
    for given in (None, 5, "AAPL", []):
        with pytest.raises(ValueError, match=f"{type(given).__name__}: give quotes, one by one"):
            await bus.share(given)
    for given in (None, 5, b"key", "", "\ud800"):
        with pytest.raises(ValueError, match=f"key_id is a {type(given).__name__}"):
            bus.budget(given)
    for given in (None, 5, b"quotes"):
        with pytest.raises(BadNamespace, match="is not usable"):
            connect(namespace=given)


@pytest.mark.parametrize("given", [0, 1.5, math.inf])
def test_a_count_is_whole_and_has_its_bounds(given: float) -> None:
    """One and a half attempts are none."""
    assert is_number(given)
    assert not is_count(given, 1)
    assert is_count(1, 1)
    assert not is_count(5, 1, 4)
    with pytest.raises(ValueError, match="attempts=-1"):
        Reconnect(attempts=-1)


def test_an_age_may_be_without_a_limit_where_that_is_said() -> None:
    """`inf` is a number of seconds like another for an answer of any age, and none for a timeout."""
    check_seconds("max_age_s", math.inf, for_ever=True)
    MarketDataService(max_age_s=math.inf, callback_timeout_s=math.inf)
    with pytest.raises(ValueError, match=r"timeout_s=inf: take a positive number of seconds"):
        connect(timeout_s=math.inf)
