"""A table of the newest quotes, drawn anew twice a second; one line per second where the output is no terminal.

python examples/dashboard.py redis://127.0.0.1:6379/0 AAPL MSFT TSLA     # Ctrl-C ends it
"""

import asyncio
import sys

from consumers import Bus, BusError, Gap, Newest, connect

HEAD = f"{'symbol':8} {'bid':>10} {'ask':>10} {'spread':>8} {'passed over':>12}  state"


async def keep(bus: Bus, symbols: tuple[str, ...], rows: dict[str, Newest], notes: dict[str, str]) -> None:
    """Latest-only: drawing may take as long as it likes, what comes next is the present."""
    async for item in bus.newest(*symbols, start="snapshot"):
        if isinstance(item, Gap):
            notes[item.symbol] = f"{item.duration_s:.1f} s were missing ({item.reason})"
        else:
            rows[item.symbol] = item


def line(symbol: str, row: Newest | None, note: str) -> str:
    """One symbol. A side without an active quote is shown as a hyphen."""
    if row is None:
        return f"{symbol:8} {'-':>10} {'-':>10} {'-':>8} {'-':>12}  {note}"
    quote = row.quote
    bid, ask = ("-" if price is None else f"{price:.2f}" for price in (quote.bid_price, quote.ask_price))
    spread = "-" if quote.spread is None else f"{quote.spread:.2f}"
    return f"{symbol:8} {bid:>10} {ask:>10} {spread:>8} {row.conflated:>12}  {note}"


async def draw(bus: Bus, symbols: tuple[str, ...], rows: dict[str, Newest], notes: dict[str, str]) -> None:
    """The state is asked of the bus, which answers also when the daemon is gone."""
    is_terminal = sys.stdout.isatty()
    if is_terminal:
        print("\n" * (len(symbols) + 1), end="")
    while True:
        quality = await bus.quality(*symbols)
        lines = [line(s, rows.get(s), f"{quality[s].level} {notes.get(s, '')}".rstrip()) for s in symbols]
        if is_terminal:
            # Up to the head of the table, and over it; K clears what an older line left behind.
            print(f"\033[{len(symbols) + 1}A" + "\n".join(f"{text}\033[K" for text in [HEAD, *lines]))
        else:
            print("\n".join(lines), flush=True)
        await asyncio.sleep(0.5 if is_terminal else 1.0)


async def main(url: str, *symbols: str) -> None:
    """Reading and drawing side by side; when one of them fails, both end."""
    rows: dict[str, Newest] = {}
    notes: dict[str, str] = {}
    async with connect(url) as bus, asyncio.TaskGroup() as tasks:
        tasks.create_task(keep(bus, symbols, rows, notes))
        tasks.create_task(draw(bus, symbols, rows, notes))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python examples/dashboard.py REDIS_URL SYMBOL...")
    try:
        asyncio.run(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        pass
    except (BusError, ValueError) as error:
        sys.exit(str(error))
    except ExceptionGroup as errors:
        sys.exit("\n".join(map(str, errors.exceptions)))
