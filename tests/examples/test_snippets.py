"""The guide's and the README's Python runs as it stands there, on a server with quotes."""

import ast
import asyncio
import re
import time
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from consumers.testing import MemoryBus, Publisher, a_quote
from simulator.redis_server import RedisServer

ROOT = Path(__file__).parents[2]
SNIPPETS = [
    pytest.param(code, id=f"{page.name}-{number}")
    for page in (ROOT / "README.md", ROOT / "docs" / "guide.md")
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL), 1)
]


async def keep_publishing(url: str) -> None:
    """Quotes of all that the snippets read, from before they begin until they have ended."""
    async with Publisher(url) as publisher:
        while True:
            await publisher.publish(*(a_quote(symbol) for symbol in ("AAPL", "MSFT", "GME", "AMC")))
            await asyncio.sleep(0.02)  # traffic


@pytest.mark.parametrize("code", SNIPPETS)
async def test_the_snippet_runs(
    code: str,
    shared_server: RedisServer,
    redis: Redis,
    quote_bus: MemoryBus,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each function of a snippet is called; one that reads for ever is cancelled while it does."""
    for name in ("APCA_API_KEY_ID", "APCA_API_SECRET_KEY", "ALPACA_API_KEY", "ALPACA_API_KEY_ID"):
        monkeypatch.delenv(name, raising=False)
    code = code.replace("redis://127.0.0.1:6399/0", shared_server.url).replace("asyncio.run(main())", "")
    names: dict[str, Any] = {"__name__": "snippet"}
    defined = [node for node in ast.parse(code).body if isinstance(node, ast.AsyncFunctionDef)]
    async with asyncio.TaskGroup() as tasks:
        publishing = tasks.create_task(keep_publishing(shared_server.url))
        while not await redis.exists("quotes:stream:AMC"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await asyncio.to_thread(exec, code, names)
        for function in defined:
            parameters = [argument.arg for argument in function.args.args]
            if parameters == ["quote"]:
                continue  # a callback, which another function of the snippet hands on
            given = {"url": shared_server.url, "bus": quote_bus, "quote_bus": quote_bus, "orders": []}
            began_s = time.monotonic()
            try:
                async with asyncio.timeout(1.5):
                    await names[function.name](*(given[name] for name in parameters))
            except TimeoutError:
                assert time.monotonic() - began_s > 1.4
        publishing.cancel()
    assert "Traceback" not in capsys.readouterr().err
