"""Spread and mid of the last minutes, as a table and a picture. Each `# %%` is a cell to editors that know them.

python examples/analysis.py redis://127.0.0.1:6379/0 AAPL 10 spread.png     # needs quotebus[pandas] and matplotlib
"""

# %% What to look at
import sys
import time

try:
    import matplotlib
    import pandas as pd

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
except ImportError as error:
    sys.exit(f"{error.name} is not installed: pip install 'quotebus[pandas]' matplotlib")

from consumers import BusError, Gap
from consumers.analysis import to_pandas
from consumers.sync import connect

if len(sys.argv) != 5:
    sys.exit("usage: python examples/analysis.py REDIS_URL SYMBOL MINUTES PICTURE.png")
url, symbol, minutes, picture = sys.argv[1:]

# %% Quotes and gaps out of the stream. The twin without `await` works in a notebook too, where a loop runs already.
try:
    with connect(url) as bus:
        items = list(bus.history(symbol, time.time_ns() - int(float(minutes) * 60e9)))
except (BusError, ValueError) as error:
    sys.exit(str(error))
quotes = to_pandas(items)
gaps = to_pandas(items, of=Gap)
if quotes.empty:
    sys.exit(f"the stream has no quote of {symbol} in the last {minutes} minutes")

# %% Mid and spread. A side without an active quote is NaN, and so is what is computed from it.
quotes["mid"] = (quotes["bid_price"] + quotes["ask_price"]) / 2
quotes["spread"] = quotes["ask_price"] - quotes["bid_price"]
quotes = quotes.set_index("time")
delay_ms = (quotes["received"] - quotes.index).dt.total_seconds() * 1000
table = pd.DataFrame({"mid": quotes["mid"], "spread": quotes["spread"], "delay_ms": delay_ms})
print(table.describe(percentiles=[0.5, 0.99]).round(4).to_string())
print(f"{len(quotes)} quotes, {len(gaps)} gaps")

# %% A line must not run into a hole: a row without prices right behind the last quote before it ends the line.
holes = pd.DataFrame({"mid": float("nan")}, index=pd.DatetimeIndex(gaps["from"] + pd.Timedelta(1, "ns")))
mid = pd.concat([quotes[["mid"]], holes]).sort_index(kind="stable")["mid"]
# The spread jumps with every quote: per second its median, and where nine of ten lie.
cents = quotes["spread"].resample("1s").quantile([0.05, 0.5, 0.95]).unstack() * 100
figure, (top, bottom) = plt.subplots(2, 1, sharex=True, figsize=(10, 6), constrained_layout=True)
top.step(mid.index, mid, where="post", linewidth=1)
top.set_ylabel("mid, USD")
top.set_title(f"{symbol}: mid and spread of {len(quotes)} quotes")
bottom.fill_between(
    cents.index, cents[0.05], cents[0.95], step="post", color="tab:orange", alpha=0.3, linewidth=0
)
bottom.step(cents.index, cents[0.5], where="post", linewidth=1, color="tab:orange")
bottom.set_ylabel("spread, cents (median, 5 to 95 %)")
bottom.set_ylim(bottom=0)
bottom.set_xlabel("venue time, UTC")
for number, (start, end) in enumerate(zip(gaps["from"], gaps["to"], strict=True)):
    for axes in (top, bottom):
        axes.axvspan(start, end, color="tab:red", alpha=0.2, label=None if number else "gap")
if len(gaps):
    top.legend(loc="upper left")
figure.savefig(picture, dpi=120)
print(f"wrote {picture}")
