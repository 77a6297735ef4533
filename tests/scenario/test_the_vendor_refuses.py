"""The vendor says no: to the keys, to a second connection, to the plan, to symbols; or nothing, or half of it."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from redis.asyncio import Redis

from ingestor.feed.messages import Subscription
from simulator import (
    AccountRules,
    AckExtra,
    AckTwice,
    AlpacaSimulator,
    DelayAck,
    IgnoreUnsubscribe,
    NoAuthAnswer,
    PartialAck,
    SimulatorSettings,
)
from simulator.frames import encode_control
from simulator.redis_server import RedisServer
from tests.scenario.account import is_well, metric
from tests.scenario.conftest import until
from tests.scenario.daemon import DaemonProcess
from tests.scenario.streams import KEYS, gaps, numbered, numbers, state_is, subscribed


def attempts(vendor: AlpacaSimulator) -> int:
    """How often credentials were sent."""
    return sum(action.kind == "auth" for action in vendor.actions)


async def stays(condition: Callable[[], bool], for_s: float) -> None:
    """Look for so long that it holds all the time."""
    broken = False

    async def breaks() -> bool:
        nonlocal broken
        broken = not condition()
        return broken

    with pytest.raises(AssertionError, match="not so within"):
        await until(breaks, for_s)
    assert not broken


@pytest.mark.fault("S08")
async def test_refused_keys_are_not_tried_again_for_a_while_and_readiness_says_so(
    shared_server: RedisServer, redis: Redis
) -> None:
    """One attempt and then patience, a 503 that names the feed, and no key in any line."""
    rules = AccountRules(key="another", secret="key")
    async with (
        AlpacaSimulator(SimulatorSettings(account=rules)) as vendor,
        DaemonProcess(shared_server.url, vendor.url("iex")) as daemon,
    ):
        await daemon.until(lambda status: status["reconnect_attempt"] == 1, 15)
        assert (await daemon.page("/readyz"))[0] == 503
        await stays(lambda: attempts(vendor) == 1, 5.0)
        await daemon.told("disconnected")
        (told,) = [event for event in daemon.events if event["event"] == "disconnected"]
        assert (told["code"], told["remedy"]) == (402, "rejected")
        assert 'quotebus_source_errors_total{code="402"} 1.0' in (await daemon.page("/metrics"))[1]
        await is_well(daemon)


@pytest.mark.fault("S09")
async def test_credentials_that_nobody_answers_are_given_up_after_ten_seconds(
    shared_server: RedisServer, redis: Redis
) -> None:
    """The session ends by the daemon's own clock, in good order, and the next one works."""
    async with AlpacaSimulator(SimulatorSettings()) as vendor:
        vendor.arm(NoAuthAnswer(), times=1)
        async with DaemonProcess(shared_server.url, vendor.url("iex")) as daemon:
            await vendor.wait_for(lambda: attempts(vendor) == 1, 15)
            began_s = vendor.actions[-1].at_s
            await vendor.wait_for(lambda: len(vendor.closed) == 1, 30)
            assert vendor.closed[0].clean
            assert 9.0 < vendor.closed[0].at_s - began_s < 15.0
            await daemon.until_live(10)
            assert "no answer while authenticating" in (await daemon.told("disconnected"))["reason"]
            await is_well(daemon)


@pytest.mark.fault("S09")
async def test_credentials_that_came_too_late_for_the_vendor_are_sent_anew(
    shared_server: RedisServer, redis: Redis
) -> None:
    """404 costs one connection and nothing else."""
    async with AlpacaSimulator(SimulatorSettings()) as vendor:
        vendor.refuse(404, times=1)
        async with DaemonProcess(shared_server.url, vendor.url("iex")) as daemon:
            await daemon.until_live(15)
            assert 'quotebus_source_errors_total{code="404"} 1.0' in (await daemon.page("/metrics"))[1]
            assert attempts(vendor) == 2
            await is_well(daemon)


@pytest.mark.fault("S10")
async def test_rotated_keys_are_found_in_their_file_within_seconds(
    shared_server: RedisServer, redis: Redis, tmp_path: Path
) -> None:
    """Live with the old pair, thrown out, refused, and live again soon after the new secret is in its file."""
    key, secret = tmp_path / "key", tmp_path / "secret"
    key.write_text("PKTESTKEY1234\n")
    secret.write_text("very-secret-value-5678\n")
    async with AlpacaSimulator(SimulatorSettings(account=AccountRules(ghost_s=0.0))) as vendor:
        daemon = DaemonProcess(shared_server.url, vendor.url("iex")).with_environment(
            APCA_API_KEY_ID="",
            APCA_API_SECRET_KEY="",
            APCA_API_KEY_ID_FILE=str(key),
            APCA_API_SECRET_KEY_FILE=str(secret),
        )
        async with daemon:
            await subscribed(redis, vendor, "AAPL")
            vendor.refuse(402, times=None)
            vendor.close(1008)
            await daemon.until(lambda status: status["state"] == "connecting" and attempts(vendor) == 2)
            await stays(lambda: attempts(vendor) == 2, 3.0)
            secret.write_text("")  # an editor that empties the file before it writes
            await stays(lambda: attempts(vendor) == 2, 1.5)
            vendor.heal()
            secret.write_text("a-new-secret-value-90\n")
            await daemon.until(lambda status: status["live"] == 1, 10)
            assert "a-new-secret-value-90" not in daemon.log
            await is_well(daemon)


@pytest.mark.fault("S11")
async def test_a_taken_slot_is_asked_for_again_on_the_same_socket(
    shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Refused with 406 after a drop, the daemon sends its keys again after about 3 s, and has one socket."""
    async with DaemonProcess(shared_server.url, vendor.url("iex")) as daemon:
        await subscribed(redis, vendor, "AAPL")
        vendor.refuse(406, times=2)
        vendor.drop(ghost=False)
        await vendor.wait_for(lambda: attempts(vendor) == 2, 10)
        most = 0

        def is_back() -> bool:
            nonlocal most
            most = max(most, len(vendor.connections))
            return vendor.symbols == {"AAPL"}

        await vendor.wait_for(is_back, 30)
        assert most == 1
        assert sum(action.kind == "connect" for action in vendor.actions) == 2
        tried_s = [action.at_s for action in vendor.actions if action.kind == "auth"][1:]
        assert [after - before >= 2.5 for before, after in pairwise(tried_s)] == [True, True]
        assert metric((await daemon.page("/metrics"))[1], "quotebus_source_errors_total", code="406") == 2
        told = await daemon.told("slot_taken")
        assert (told["code"], told["attempt"]) == (406, 2)
        assert 2.5 <= told["next_in_s"] <= 3.5
        await is_well(daemon)


@pytest.mark.fault("S14")
@pytest.mark.parametrize("code", [409, 410, 411])
async def test_a_plan_without_the_feed_is_a_matter_for_a_human(
    shared_server: RedisServer, redis: Redis, code: int
) -> None:
    """Not ready, the reason in words, and no second attempt for a while."""
    async with AlpacaSimulator(SimulatorSettings()) as vendor:
        vendor.refuse(code, times=None)
        async with DaemonProcess(shared_server.url, vendor.url("iex")) as daemon:
            await daemon.until(lambda status: status["reconnect_attempt"] == 1, 15)
            assert (await daemon.page("/readyz"))[0] == 503
            await stays(lambda: attempts(vendor) == 1, 3.0)
            await daemon.told("disconnected")
            (told,) = [event for event in daemon.events if event["event"] == "disconnected"]
            assert (told["code"], told["remedy"]) == (code, "rejected")
            await is_well(daemon)


@pytest.mark.fault("S16")
async def test_an_error_that_nobody_has_heard_of_costs_one_connection(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """599 is told by its number, counted as unknown, and the feed comes back."""
    await subscribed(redis, vendor, "AAPL")
    vendor.error(599, "something new")
    await vendor.wait_for(lambda: len(vendor.closed) == 1 and vendor.symbols == {"AAPL"}, 10)
    await daemon.told("disconnected")
    (told,) = [event for event in daemon.events if event["event"] == "disconnected"]
    assert (told["code"], told["reason"]) == (599, 'unknown error code 599 ("something new")')
    _, metrics = await daemon.page("/metrics")
    assert metric(metrics, "quotebus_source_errors_total", code="unknown") == 1
    await is_well(daemon)


@pytest.mark.fault("S12")
async def test_a_vendor_that_finds_us_slow_costs_one_connection_and_a_marker(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """407 is counted once, the daemon is back, and the stream says where quotes are missing."""
    await subscribed(redis, vendor, "AAPL")
    vendor.send(numbered("AAPL", 1, 5))
    await daemon.until(lambda status: status["stored"] == 5)
    vendor.error(407)
    await vendor.wait_for(lambda: len(vendor.closed) == 1 and vendor.symbols == {"AAPL"}, 10)
    vendor.send(numbered("AAPL", 10, 5))
    await daemon.until(lambda status: status["stored"] == 10)
    assert [gap.reason for gap in await gaps(redis, "AAPL")] == ["feed_disconnected"]
    _, metrics = await daemon.page("/metrics")
    assert metric(metrics, "quotebus_source_errors_total", code="407") == 1
    assert sum(action.kind == "connect" for action in vendor.actions) == 2
    await is_well(daemon)


@pytest.mark.fault("S34")
async def test_what_an_acknowledgement_lacks_is_asked_for_again(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Ten asked for, seven granted: the next request is for the other three alone."""
    names = [f"SYM{n}" for n in range(10)]
    vendor.arm(PartialAck(7), times=1)
    await subscribed(redis, vendor, *names)
    await daemon.until(lambda status: status["live"] == 10)
    asked = [action.quotes for action in vendor.actions if action.kind == "subscribe"]
    assert [len(symbols) for symbols in asked] == [10, 3]
    assert set(asked[1]) == set(names[7:])
    await is_well(daemon)


@pytest.mark.fault("S34")
async def test_what_the_vendor_will_not_grant_is_refused_and_the_count_is_honest(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Acknowledged three times without it, a symbol is refused with that reason; the others are live."""
    vendor.arm(PartialAck(1), times=1)
    vendor.arm(PartialAck(0), times=2)
    await redis.sadd(KEYS.symbols, "AAPL", "MSFT")
    await until(lambda: state_is(redis, "MSFT", "refused"))
    assert (await daemon.status())["live"] == 1
    assert vendor.symbols == {"AAPL"}
    reason = json.loads(await redis.hget(KEYS.subscriptions, "MSFT") or "")["reason"]
    assert "without this symbol" in reason
    _, metrics = await daemon.page("/metrics")
    assert metric(metrics, "quotebus_subscriptions", state="live") == 1
    assert metric(metrics, "quotebus_subscriptions", state="refused") == 1
    await is_well(daemon)


@pytest.mark.fault("S35")
async def test_what_an_acknowledgement_has_too_much_is_unsubscribed(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """The set in force is believed, and the intruder is taken out by a request of its own."""
    vendor.arm(AckExtra("ZZZZ"), times=1)
    await redis.sadd(KEYS.symbols, "AAPL")
    await vendor.wait_for(
        lambda: [a.quotes for a in vendor.actions if a.kind == "unsubscribe"] == [("ZZZZ",)], 10
    )
    assert vendor.symbols == {"AAPL"}
    await daemon.until(lambda status: status["live"] == 1)
    await is_well(daemon)


@pytest.mark.fault("S36")
async def test_a_vendor_that_keeps_a_symbol_is_left_after_three_requests(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Removed three times in vain, the symbol goes with the session; what comes of it until then is stored."""
    await subscribed(redis, vendor, "AAPL", "MSFT")
    vendor.arm(IgnoreUnsubscribe())
    vendor.arm(DelayAck(0.5, "unsubscribe"))
    await redis.srem(KEYS.symbols, "MSFT")
    await vendor.wait_for(lambda: sum(action.kind == "unsubscribe" for action in vendor.actions) == 2)
    vendor.send(numbered("MSFT", 1, 5))
    await daemon.until(lambda status: status["stored"] == 5)
    await vendor.wait_for(lambda: len(vendor.closed) == 1 and vendor.symbols == {"AAPL"}, 15)
    assert sum(action.kind == "unsubscribe" for action in vendor.actions) == 3
    assert "ignores removals" in (await daemon.told("disconnected"))["reason"]
    await is_well(daemon)


@pytest.mark.fault("S37")
async def test_quotes_that_overtake_their_acknowledgement_are_stored(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """The vendor's data may be faster than its answer."""
    vendor.arm(DelayAck(1.0), times=1)
    await redis.sadd(KEYS.symbols, "AAPL")
    await vendor.wait_for(lambda: vendor.symbols == {"AAPL"})
    vendor.send(numbered("AAPL", 1, 20))
    status = await daemon.until(lambda status: status["stored"] == 20)
    assert status["live"] == 0
    await daemon.until(lambda status: status["live"] == 1)
    assert await numbers(redis, "AAPL") == list(range(1, 21))
    await is_well(daemon)


@pytest.mark.fault("S38")
async def test_an_acknowledgement_said_twice_or_unasked_changes_nothing(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """No further request follows, no symbol is lost, and quotes flow on."""
    vendor.arm(AckTwice(), times=1)
    await subscribed(redis, vendor, "AAPL")
    for _ in range(3):
        vendor.send_raw(encode_control(Subscription(quotes=["AAPL"]), "msgpack"))
    vendor.send(numbered("AAPL", 1, 20))
    await daemon.until(lambda status: status["stored"] == 20 and status["live"] == 1)
    assert sum(action.kind in ("subscribe", "unsubscribe") for action in vendor.actions) == 1
    assert await gaps(redis, "AAPL") == []
    assert len(vendor.closed) == 0
    await is_well(daemon)


@pytest.mark.fault("S38")
async def test_an_acknowledgement_that_has_forgotten_a_symbol_is_put_right(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Out of the blue the vendor says that MSFT is not in the set: it is asked for again, and is live."""
    await subscribed(redis, vendor, "AAPL", "MSFT")
    await daemon.until(lambda status: status["live"] == 2)
    asked = sum(action.kind == "subscribe" for action in vendor.actions)
    vendor.send_raw(encode_control(Subscription(quotes=["AAPL"]), "msgpack"))
    await vendor.wait_for(
        lambda: [a.quotes for a in vendor.actions if a.kind == "subscribe"][asked:] == [("MSFT",)], 10
    )
    await daemon.until(lambda status: status["live"] == 2)
    await is_well(daemon)
