"""The judge of REST: alpaca-py's own clients, unmodified, take the double for Alpaca."""

import asyncio
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from simulator import AccountRules, AlpacaSimulator, SimQuote, SimulatorSettings
from tests.simulator.client import joined

NS = 1_700_000_000_123_456_789
START = datetime(2025, 3, 3, 15, tzinfo=UTC)


def data_client(sim: AlpacaSimulator, key: str = "key", **options: Any) -> Any:
    """The client of the data host. It waits no three seconds before it tries again."""
    from alpaca.data.historical import StockHistoricalDataClient

    client = StockHistoricalDataClient(key, "secret", url_override=sim.rest_url, **options)
    client._retry_wait = 0
    return client


def trading_client(sim: AlpacaSimulator, key: str = "key") -> Any:
    """The client of the trading host."""
    from alpaca.trading.client import TradingClient

    return TradingClient(key, "secret", url_override=sim.rest_url)


async def latest(client: Any, *symbols: str, **options: Any) -> Any:
    """The newest quotes."""
    from alpaca.data.requests import StockLatestQuoteRequest

    request = StockLatestQuoteRequest(symbol_or_symbols=list(symbols), **options)
    return await asyncio.to_thread(client.get_stock_latest_quote, request)


async def quotes(client: Any, symbols: str | list[str], **options: Any) -> Any:
    """Quotes of a span of time."""
    from alpaca.data.requests import StockQuotesRequest

    request = StockQuotesRequest(symbol_or_symbols=symbols, **options)
    return await asyncio.to_thread(client.get_stock_quotes, request)


async def bars(client: Any, symbols: str | list[str], amount: int, unit: str, **options: Any) -> Any:
    """Bars of a span of time."""
    from alpaca.data.requests import StockBarsRequest
    from alpaca.data.timeframe import TimeFrame, TimeFrameUnit

    frame = TimeFrame(amount, TimeFrameUnit[unit])
    request = StockBarsRequest(symbol_or_symbols=symbols, timeframe=frame, **options)
    return await asyncio.to_thread(client.get_stock_bars, request)


async def test_the_latest_quote_is_what_the_stream_sent() -> None:
    """Every field and every nanosecond is as on the websocket, and the newest quote wins."""
    quote = SimQuote("AAPL", NS, 187.41, 300, 187.43, 200, "V", "Q", ("R",), "C")
    async with AlpacaSimulator() as sim, joined(sim, "AAPL") as client:
        sim.send([SimQuote("AAPL", NS - 1, 1.0, 1, 2.0, 1), quote])
        await client.quotes(2)
        found = await latest(data_client(sim, raw_data=True), "AAPL")
        assert found == {
            "AAPL": {
                "t": "2023-11-14T22:13:20.123456789Z",
                "bp": 187.41,
                "bs": 300,
                "bx": "V",
                "ap": 187.43,
                "as": 200,
                "ax": "Q",
                "c": ["R"],
                "z": "C",
            }
        }
        model = (await latest(data_client(sim), "AAPL"))["AAPL"]
        assert (model.bid_price, model.ask_size, model.timestamp.year) == (187.41, 200.0, 2023)


async def test_nobody_need_listen_for_a_quote_to_be_fresh() -> None:
    """A symbol that nobody subscribed is quoted when it is asked for, and a muted stream goes on unseen."""
    async with AlpacaSimulator(SimulatorSettings(rate=100)) as sim:
        client = data_client(sim)
        first = (await latest(client, "AAPL", "ZZZZ"))["ZZZZ"]
        assert sim.quotes_made == 2
        assert datetime.now(UTC) - first.timestamp < timedelta(seconds=15)  # noqa: TID251
        async with joined(sim, "ZZZZ") as listener:
            await listener.quotes(3)
            sim.mute()
            muted = (await latest(client, "ZZZZ"))["ZZZZ"].timestamp
            made = sim.quotes_made
            await sim.wait_for(lambda: sim.quotes_made > made + 10)
            assert (await latest(client, "ZZZZ"))["ZZZZ"].timestamp > muted > first.timestamp


async def test_a_market_at_rest_has_a_past() -> None:
    """Without a rate and without a quote sent, the newest quote is the past's, at most ten seconds old."""
    async with AlpacaSimulator() as sim:
        found = (await latest(data_client(sim), "SPY"))["SPY"]
        assert timedelta(0) <= datetime.now(UTC) - found.timestamp < timedelta(seconds=25)  # noqa: TID251
        assert found.ask_price > found.bid_price > 100


async def test_quotes_come_in_pages() -> None:
    """A day of two symbols takes the client four calls, and is whole: each slot of five seconds has one quote."""
    async with AlpacaSimulator() as sim:
        found = await quotes(data_client(sim), ["MSFT", "AAPL"], start=START, end=START + timedelta(days=1))
        assert [call.path for call in sim.rest_calls] == ["/v2/stocks/quotes"] * 4
        assert ["page_token" in call.query for call in sim.rest_calls] == [False, True, True, True]
        for symbol in ("AAPL", "MSFT"):
            times = [quote.timestamp for quote in found[symbol]]
            assert times == sorted(set(times))
            assert len({int(at.timestamp()) // 5 for at in times}) == 24 * 720


async def test_limit_and_sort_are_honoured() -> None:
    """The limit counts across symbols; newest first is the same range, reversed."""
    async with AlpacaSimulator() as sim:
        client = data_client(sim, raw_data=True)
        span = {"start": START, "end": START + timedelta(minutes=10)}
        whole = (await quotes(client, "AAPL", **span))["AAPL"]
        assert (await quotes(client, "AAPL", sort="desc", **span))["AAPL"] == whole[::-1]
        few = await quotes(client, ["AAPL", "MSFT"], limit=len(whole) + 3, **span)
        assert few["AAPL"] == whole
        assert len(few["MSFT"]) == 3


async def test_what_was_sent_is_history_and_ends_the_past() -> None:
    """The quotes of the stream follow the invented past without a hole or an overlap."""
    at = int(START.timestamp()) * 10**9 + 2_500_000_000
    sent = [SimQuote("AAPL", at + n, 10.0 + n, 1, 11.0 + n, 1) for n in range(3)]
    async with AlpacaSimulator() as sim:
        client = data_client(sim, raw_data=True)
        span = {"start": START - timedelta(minutes=1), "end": START + timedelta(minutes=1)}
        before = (await quotes(client, "AAPL", **span))["AAPL"]
        sim.send(sent)
        after = (await quotes(client, "AAPL", **span))["AAPL"]
        assert [quote["bp"] for quote in after[-3:]] == [10.0, 11.0, 12.0]
        assert after[:-3] == [quote for quote in before if quote["t"] < after[-3]["t"]]
        (bar,) = (await bars(client, "AAPL", 1, "Minute", start=START, end=START))["AAPL"]
        assert bar["c"] == 12.5
        assert bar["n"] == len([quote for quote in after if quote["t"] >= "2025-03-03T15:00"])


@pytest.mark.parametrize(
    ("amount", "unit", "days", "expected"),
    [
        (1, "Minute", 1, 1441),
        (5, "Minute", 1, 289),
        (1, "Hour", 10, 241),
        (1, "Day", 30, 22),
        (1, "Week", 21, 3),
    ],
)
async def test_bars(amount: int, unit: str, days: int, expected: int) -> None:
    """Each timeframe has its bars; a day is a trading day."""
    async with AlpacaSimulator() as sim:
        found = await bars(
            data_client(sim), "AAPL", amount, unit, start=START, end=START + timedelta(days=days)
        )
        made = found["AAPL"]
        assert len(made) == expected
        assert all(
            bar.low <= min(bar.open, bar.close) <= max(bar.open, bar.close) <= bar.high for bar in made
        )
        assert all(bar.low <= bar.vwap <= bar.high and bar.volume > 0 for bar in made)


async def test_bars_are_made_of_the_quotes() -> None:
    """A bar's prices are the first, highest, lowest and last mid of its minute's quotes."""
    async with AlpacaSimulator() as sim:
        client = data_client(sim)
        (bar,) = (await bars(client, "TSLA", 1, "Minute", start=START, end=START))["TSLA"]
        end = START + timedelta(seconds=59, microseconds=999_999)
        mids = [
            round((quote.bid_price + quote.ask_price) / 2, 3)
            for quote in (await quotes(client, "TSLA", start=START, end=end))["TSLA"]
        ]
        assert (bar.open, bar.high, bar.low, bar.close) == (mids[0], max(mids), min(mids), mids[-1])
        assert bar.trade_count == len(mids)


async def test_the_clock_is_always_open_unless_told_otherwise() -> None:
    """The default market is open at any hour, with the calendar's next close; regular hours follow the calendar."""
    async with AlpacaSimulator() as sim:
        always = await asyncio.to_thread(trading_client(sim).get_clock)
        assert always.is_open
        assert always.timestamp < always.next_close < always.next_open
    async with AlpacaSimulator(SimulatorSettings(market_hours="regular")) as sim:
        clock = await asyncio.to_thread(trading_client(sim).get_clock)
        assert clock.is_open == (clock.next_close < clock.next_open)
        assert clock.next_close == always.next_close


async def test_the_calendar_knows_holidays_and_half_days() -> None:
    """Thanksgiving is closed and the day after ends at one o'clock."""
    from alpaca.trading.requests import GetCalendarRequest

    async with AlpacaSimulator() as sim:
        wanted = GetCalendarRequest(start=date(2025, 11, 26), end=date(2025, 12, 1))
        days = await asyncio.to_thread(trading_client(sim).get_calendar, wanted)
        assert [(day.date.day, day.open.hour, day.close.hour) for day in days] == [
            *((26, 9, 16), (28, 9, 13), (1, 9, 16))
        ]
        assert sim.rest_calls[-1].query == {"start": "2025-11-26", "end": "2025-12-01"}


@pytest.mark.fault("Q31")
async def test_assets() -> None:
    """The market's symbols, found by name and by id, and none that is invented; some may not be traded."""
    from alpaca.common.exceptions import APIError
    from alpaca.trading.enums import AssetStatus
    from alpaca.trading.requests import GetAssetsRequest

    rules = AccountRules(
        refused_symbols=frozenset({"HALT"}),
        inactive_symbols=frozenset({"GONE"}),
        untradable_symbols=frozenset({"SPY"}),
    )
    async with AlpacaSimulator(SimulatorSettings(account=rules, symbols=("AAPL", "SPY"))) as sim:
        client = trading_client(sim)
        listed = await asyncio.to_thread(client.get_all_assets)
        assert [(each.symbol, each.exchange.value) for each in listed] == [
            ("AAPL", "NASDAQ"),
            ("SPY", "ARCA"),
            ("GONE", "NYSE"),
        ]
        assert [(each.status.value, each.tradable) for each in listed] == [
            ("active", True),
            ("active", False),
            ("inactive", False),
        ]
        active = GetAssetsRequest(status=AssetStatus.ACTIVE)
        assert [a.symbol for a in await asyncio.to_thread(client.get_all_assets, active)] == ["AAPL", "SPY"]
        assert await asyncio.to_thread(client.get_asset, str(listed[1].id)) == listed[1]
        for unknown in ("HALT", "ZZZZNOTASYM", "NVDA"):
            with pytest.raises(APIError) as caught:
                await asyncio.to_thread(client.get_asset, unknown)
            assert (caught.value.status_code, caught.value.code) == (404, 40410000)


async def test_alpaca_py_tries_again_after_429() -> None:
    """Two refusals are met by its own retries, and the third call gets the quote."""
    async with AlpacaSimulator() as sim:
        sim.refuse_rest(429, times=2)
        assert "AAPL" in await latest(data_client(sim), "AAPL")
        assert [call.status for call in sim.rest_calls] == [429, 429, 200]


async def test_refusals_read_as_alpacas() -> None:
    """Bad keys, a feed beyond the plan and a symbol that is none carry the vendor's status, code and words."""
    from alpaca.common.exceptions import APIError

    rules = AccountRules(key="key", feeds_in_plan=frozenset({"iex"}))
    async with AlpacaSimulator(SimulatorSettings(account=rules)) as sim:
        with pytest.raises(APIError) as bad_key:
            await latest(data_client(sim, "wrong"), "AAPL")
        assert (bad_key.value.status_code, bad_key.value.message) == (401, "forbidden.")
        with pytest.raises(APIError) as trading:
            await asyncio.to_thread(trading_client(sim, "wrong").get_clock)
        assert (trading.value.status_code, trading.value.code) == (401, 40110000)
        with pytest.raises(APIError) as beyond:
            await latest(data_client(sim), "AAPL", feed="sip")
        assert (beyond.value.status_code, beyond.value.code) == (403, 42210000)
        with pytest.raises(APIError) as no_symbol:
            await latest(data_client(sim), "aapl?")
        assert (no_symbol.value.status_code, no_symbol.value.message) == (400, "invalid symbol: aapl?")
        await latest(data_client(sim), "AAPL", feed="iex")
        old = await quotes(
            data_client(sim), "AAPL", start=START, end=START + timedelta(minutes=1), feed="sip"
        )
        assert len(old["AAPL"]) == 12
