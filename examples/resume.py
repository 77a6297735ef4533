"""Count quotes, remember how far we came in a file, and go on from there the next time.

python examples/resume.py redis://127.0.0.1:6379/0 AAPL MSFT     # end it with Ctrl-C, start it again
"""

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path

from consumers import BusError, Gap, connect

POSITIONS = Path("positions.json")


def load() -> dict[str, str]:
    """Symbol -> id of the last entry that was counted."""
    return json.loads(POSITIONS.read_text()) if POSITIONS.exists() else {}


def save(positions: dict[str, str]) -> None:
    """Replace the file as a whole, so that a crash leaves the old one."""
    draft = POSITIONS.with_suffix(".new")
    draft.write_text(json.dumps(positions))
    draft.replace(POSITIONS)


async def main(url: str, *symbols: str) -> None:
    """What comes while this program is not running is read when it comes back; what was trimmed shows as a gap."""
    saved = load()
    start = {symbol: saved.get(symbol, "earliest") for symbol in symbols}
    counts: Counter[str] = Counter()
    async with connect(url) as bus:
        stream = bus.quotes(*symbols, start=start)
        try:
            async for item in stream:
                if isinstance(item, Gap):
                    print(f"{item.symbol}: {item.duration_s:.3f} s are missing ({item.reason})")
                else:
                    counts[item.symbol] += 1
        finally:
            save(saved | stream.positions)
            print(f"read {dict(counts)}, saved {POSITIONS}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python examples/resume.py REDIS_URL SYMBOL...")
    try:
        asyncio.run(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        pass
    except (BusError, ValueError) as error:
        sys.exit(str(error))
