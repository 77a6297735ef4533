"""Count quotes, remember in a file how far we came, and go on from there the next time.

python examples/checkpoint.py redis://127.0.0.1:6379/0 positions.json AAPL MSFT     # Ctrl-C, and start it again
"""

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path

from consumers import BusError, Gap, connect


def load(path: Path) -> dict[str, str]:
    """Symbol -> id of the last entry that was counted."""
    return dict(json.loads(path.read_text())) if path.exists() else {}


def save(path: Path, positions: dict[str, str]) -> None:
    """Replace the file as a whole, so that a crash leaves the old one."""
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(positions))
    draft.replace(path)


async def main(url: str, file: str, *symbols: str) -> None:
    """What comes while this program is not running is read when it comes back; what was trimmed shows as a gap."""
    path = Path(file)
    saved = load(path)
    start = {symbol: saved.get(symbol, "earliest") for symbol in symbols}
    counts: Counter[str] = Counter()
    async with connect(url) as bus:
        stream = bus.quotes(*symbols, start=start)
        try:
            async for batch in stream.batches():
                for item in batch:
                    if isinstance(item, Gap):
                        print(
                            f"{item.symbol}: {item.duration_s:.3f} s are missing ({item.reason})", flush=True
                        )
                    else:
                        counts[item.symbol] += 1
                # After the work, never before it: a crash in between repeats the batch instead of losing it.
                save(path, saved | stream.positions)
                print(f"read {dict(counts)}", flush=True)
        finally:
            print(f"positions are in {path}")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit("usage: python examples/checkpoint.py REDIS_URL FILE SYMBOL...")
    try:
        asyncio.run(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        pass
    except (BusError, ValueError, OSError) as error:
        sys.exit(str(error))
