"""`quotebus tail`: quotes and gaps of some symbols, line by line.

Decides how a quote is printed. Must never know how it is read: that is the consumers library, used as any strategy
would use it.
"""

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any

from consumers import BadNamespace, BadStart, BadSymbol, BadUrl, BusError, Gap, Quote, connect
from ingestor import early_signals
from ingestor.commands.quick_redis import QuickRedis, RedisProblem
from wire import Keyspace


def follow(
    symbols: list[str], start: str, count: int | None, as_json: bool, redis_url: str, namespace: str
) -> int:
    """Print until `count` lines, Ctrl-C, or a Redis that cannot be reached (0, 0 and 1); 2 for what is
    wrongly given."""
    printer = _json_line if as_json else _line
    symbols = [symbol.strip().upper() for symbol in symbols]
    try:
        for symbol in _unwanted(symbols, redis_url, namespace):
            print(f"{symbol} is not in {namespace}:symbols; quotebus symbols add {symbol}", file=sys.stderr)
        asyncio.run(_until_signalled(_follow(symbols, _start(start), count, printer, redis_url, namespace)))
    except (BadStart, BadSymbol, BadNamespace, BadUrl) as problem:
        print(f"quotebus: {problem}", file=sys.stderr)
        return 2
    except RedisProblem as problem:
        print(f"quotebus: {problem}", file=sys.stderr)
        return problem.exit_code
    except BusError as problem:
        print(f"quotebus: {problem}", file=sys.stderr)
        return 1
    return 0


def _unwanted(symbols: list[str], redis_url: str, namespace: str) -> list[str]:
    """The symbols that no operator asked for: of these nothing may ever come."""
    keys = Keyspace(namespace)
    with QuickRedis(redis_url) as redis:
        wanted = redis.call_all(*(("SISMEMBER", keys.symbols, symbol) for symbol in symbols))
    return [symbol for symbol, is_wanted in zip(symbols, wanted, strict=True) if is_wanted == 0]


async def _until_signalled(following: Coroutine[Any, Any, None]) -> None:
    """The first signal ends it in good order, a second one at once."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def end() -> None:
        for number in numbers:
            loop.remove_signal_handler(number)
        early_signals.install()
        task.cancel()

    named = ("SIGTERM", "SIGINT", "SIGHUP")
    present = [signal.Signals[name] for name in named if hasattr(signal, name)]
    numbers = [number for number in present if signal.getsignal(number) is not signal.SIG_IGN]
    # On Windows a loop has no handlers; there the meaning from the start on stays.
    with contextlib.suppress(NotImplementedError):
        for number in numbers:
            loop.add_signal_handler(number, end)
    with contextlib.suppress(asyncio.CancelledError):
        await following


async def _follow(
    symbols: list[str],
    start: Any,
    count: int | None,
    printer: Callable[[Quote | Gap], str],
    redis_url: str,
    namespace: str,
) -> None:
    async with connect(redis_url, namespace=namespace) as bus:
        printed = 0
        # No lease: whoever looks must not put a strategy's symbol out of a full plan, nor need a right to write.
        async for item in bus.quotes(*symbols, start=start, lease=False):
            sys.stdout.write(printer(item) + "\n")
            sys.stdout.flush()
            printed += 1
            if count is not None and printed >= count:
                return


def _start(text: str) -> Any:
    """A time becomes a datetime; all else is the library's to read."""
    if "T" in text or " " in text or text.count("-") == 2:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise BadStart(f"--start {text!r} is no time: write it as 2026-01-05T14:30:00Z") from None
        if moment.tzinfo is None:
            whole = moment.isoformat(timespec="seconds")
            raise BadStart(f"--start {text!r} does not say in which zone: write {whole}Z for UTC")
        return moment
    return text


def _line(item: Quote | Gap) -> str:
    if isinstance(item, Gap):
        return f"{_clock(item.to_ns)}  {item.symbol:<8} gap of {item.duration_s:.3f} s: {item.reason}"
    return (
        f"{_clock(item.time_ns)}  {item.symbol:<8} "
        f"{_side(item.bid_price, item.bid_size, item.bid_exchange)}  "
        f"{_side(item.ask_price, item.ask_size, item.ask_exchange)}  "
        f"{' '.join(item.conditions or ())}".rstrip()
    )


def _side(price: float | None, size: float | None, exchange: str | None) -> str:
    if price is None:
        return f"{'-':>10} {'-':>6} {exchange or ' '}"
    return f"{price:>10.2f} {size if size is not None else '-':>6} {exchange or ' '}"


def _clock(time_ns: int) -> str:
    seconds, ns = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds):%H:%M:%S}.{ns // 1000:06d}"


def _json_line(item: Quote | Gap) -> str:
    fields = {name: getattr(item, name) for name in item.__struct_fields__}
    return json.dumps({"type": type(item).__name__.lower(), **fields})
