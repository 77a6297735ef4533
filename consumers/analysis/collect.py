"""Items of an iteration into a list, with an end.

Decides when it has enough. Must never know what the items are.
"""

import asyncio
from collections.abc import AsyncIterable, Iterable
from typing import Any, Final

from consumers.arguments import is_count

COLLECT_MAX: Final = 10_000_000
"""Items without a `limit`, some 3 GB of quotes: an iteration that never ends would fill the memory."""


async def collect(
    items: AsyncIterable[Any] | Iterable[Any], *, limit: int | None = None, within_s: float | None = None
) -> list[Any]:
    """The items of an iteration, such as a history, in a list; batches (lists) are taken apart.

    Ends with the iteration, after `limit` items or after `within_s` seconds, whichever comes first; a stream that
    follows the market needs one of the two. The iteration is closed then. Raises `ValueError` when there are more
    than `COLLECT_MAX` items and no `limit` was given, besides what the iteration raises.
    """
    if limit is not None and not is_count(limit, 0):
        raise ValueError(f"limit={limit!r}: take 0 or more items")
    most = COLLECT_MAX if limit is None else limit
    found: list[Any] = []
    if isinstance(items, Iterable):
        for item in items:
            if _is_full(found, item, most):
                break
    else:
        iterator = aiter(items)
        try:
            async with asyncio.timeout(within_s) as limited:
                if most:
                    async for item in iterator:
                        if _is_full(found, item, most):
                            break
        except TimeoutError:
            # The iteration's own is not ours to hide.
            if not limited.expired():
                raise
        finally:
            if hasattr(iterator, "aclose"):
                await iterator.aclose()
    if limit is None and len(found) >= COLLECT_MAX:
        raise ValueError(f"more than {COLLECT_MAX} items: pass a limit, or collect shorter stretches of time")
    del found[most:]
    return found


def _is_full(found: list[Any], item: Any, most: int) -> bool:
    if isinstance(item, list):
        found += item
    else:
        found.append(item)
    return len(found) >= most
