"""The demo's live table.

Decides how a view looks on a terminal. Must never read anything: the view is an argument.
"""

import time

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ingestor.commands.demo_view import View

_COLOURS = {
    "live": "green",
    "not_stored": "red",
    "requested": "yellow",
    "waiting": "yellow",
    "refused": "red",
    "leaving": "dim",
}


def table(view: View, first_quote_s: float | None) -> RenderableType:
    """One frame of the screen."""
    status = view.status
    head = Text.assemble(
        ("quotebus demo", "bold"),
        f"  {status.get('state', 'starting')}  ",
        f"{view.live}/{len(view.states)} live  ",
        (f"{view.rate:.0f} quotes/s  ", "bold"),
        f"stored {status.get('stored', '0')}  dropped {status.get('dropped', '0')}  ",
        f"first quote after {first_quote_s:.1f} s" if first_quote_s is not None else "waiting for quotes",
    )
    grid = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("symbol", "state"):
        grid.add_column(title)
    for title in ("bid size", "bid", "ask", "ask size", "quotes/s", "stored", "age ms"):
        grid.add_column(title, justify="right")
    now_ns = time.time_ns()
    for symbol in sorted(view.totals):
        grid.add_row(*_row(view, symbol, now_ns))
    hidden = len(view.states) - len(view.totals)
    return Group(head, grid, Text(f"and {hidden} more symbols", "dim") if hidden > 0 else Text(""))


def _row(view: View, symbol: str, now_ns: int) -> list[RenderableType]:
    state = view.states.get(symbol, "unseen")
    shown: list[RenderableType] = [symbol, Text(state, _COLOURS.get(state, "dim"))]
    quote = view.quotes.get(symbol)
    if quote is None:
        return [*shown, "-", "-", "-", "-", "0", str(view.totals.get(symbol, 0)), "-"]
    return [
        *shown,
        str(quote.bid_size if quote.bid_price is not None else "-"),
        f"{quote.bid_price:.2f}" if quote.bid_price is not None else "-",
        f"{quote.ask_price:.2f}" if quote.ask_price is not None else "-",
        str(quote.ask_size if quote.ask_price is not None else "-"),
        f"{view.rates.get(symbol, 0.0):.1f}",
        str(view.totals.get(symbol, 0)),
        f"{view.age_ms(symbol, now_ns):.0f}",
    ]
