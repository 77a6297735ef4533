"""A day from its beginning to its account: server, market, strategies, and a hand that presses Ctrl-C.

Decides the order of things, and whom an interrupt meets. Must never know how a strategy reads, nor judge it.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from simulator.redis_server import RedisServer
from tests.day.account import Account, account, account_of_group
from tests.day.design import Life, lives
from tests.day.market import Market
from tests.day.notes import read_lines, read_notes

ROOT: Final = Path(__file__).parents[2]
STRATEGY: Final = Path(__file__).with_name("strategy.py")
BEGIN_WITHIN_S: Final = 120.0
MAXLEN: Final = 50_000
"""As many entries as the daemon keeps of each symbol."""
PAUSE_S: Final = (0.001, 0.03)
SOME_WORDS: Final = 3_000


class Day(msgspec.Struct):
    """What became of one day. `failures` are strategies that did not end, or not well."""

    accounts: dict[str, Account] = {}
    failures: list[str] = []
    interrupts: int = 0
    sent: int = 0
    took_s: float = 0.0

    @property
    def is_right(self) -> bool:
        """Whether each entry of each strategy is accounted for."""
        return not self.failures and all(each.is_right for each in self.accounts.values())


def spend(seed: int, quotes: int, rate: float, ends_within_s: float, ways: list[str] | None = None) -> Day:
    """Live through it; with `ways` only those strategies."""
    began_s, day = time.monotonic(), Day()
    with (
        tempfile.TemporaryDirectory(prefix="quotebus-day-") as name,
        RedisServer() as server,
    ):
        folder, chosen = Path(name), [life for life in lives(seed) if not ways or life.way in ways]
        market = Market(server.url, seed, quotes, rate, MAXLEN)
        with _started(server.url, folder, chosen) as running:
            sending = threading.Thread(target=market.run)
            try:
                _until_ready(folder, running)
                sending.start()
                _interrupt(seed, day, running, sending, market, folder, ends_within_s)
            finally:
                market.is_over.set()
                if sending.ident is not None:
                    sending.join()
            _judge_ends(day, running, folder)
        day.sent = sum(len(times) for times in market.sent.values())
        for life in chosen:
            if not life.is_worker:
                day.accounts[life.name] = _account(market, folder, life)
        if workers := [life for life in chosen if life.is_worker]:
            sent = {symbol: market.sent[symbol] for symbol in workers[0].symbols}
            lines = [line for life in workers for line in read_lines(folder / life.name)]
            day.accounts["group"] = account_of_group(sent, lines)
    day.took_s = time.monotonic() - began_s
    return day


def _account(market: Market, folder: Path, life: Life) -> Account:
    sent = {symbol: market.sent[symbol] for symbol in life.symbols}
    notes = (note for part in sorted((folder / life.name).iterdir()) for note in read_notes(part))
    return account(sent, notes)


@contextmanager
def _started(url: str, folder: Path, chosen: list[Life]) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for life in chosen:
            with (folder / f"{life.name}.err").open("wb") as errors:
                running[life.name] = subprocess.Popen(
                    [sys.executable, str(STRATEGY), url, str(folder), msgspec.json.encode(life).decode()],
                    env={**os.environ, "PYTHONPATH": str(ROOT)},
                    stdout=errors,
                    stderr=errors,
                    # As a terminal does it: Ctrl-C goes to a strategy and to what it has forked.
                    start_new_session=True,
                )
        yield running
    finally:
        for process in running.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _until_ready(folder: Path, running: dict[str, subprocess.Popen[bytes]]) -> None:
    until_s = time.monotonic() + BEGIN_WITHIN_S
    while not all((folder / f"{name}.ready").exists() for name in running):
        if time.monotonic() > until_s or any(process.poll() for process in running.values()):
            words = [f"{name}: {(folder / f'{name}.err').read_text()}" for name in running]
            raise RuntimeError("strategies did not begin: " + "\n".join(words))
        time.sleep(0.02)


def _interrupt(
    seed: int,
    day: Day,
    running: dict[str, subprocess.Popen[bytes]],
    sending: threading.Thread,
    market: Market,
    folder: Path,
    ends_within_s: float,
) -> None:
    chance, until_s = random.Random(f"interrupts {seed}"), time.monotonic() + ends_within_s
    is_told = False
    processes = list(running.values())
    while any(process.poll() is None for process in processes):
        if time.monotonic() > until_s:
            return
        if not (is_told or sending.is_alive()):
            (folder / "ends.new").write_bytes(msgspec.json.encode(market.ends))
            (folder / "ends.new").rename(folder / "ends")
            is_told = True
        time.sleep(chance.uniform(*PAUSE_S))
        # Most of them alone; now and then so many that one meets what another has left.
        process = chance.choice(processes)
        if process.poll() is not None:
            continue
        for _ in range(chance.choice([1, 1, 1, 1, 1, 8])):
            os.killpg(process.pid, signal.SIGINT)
            day.interrupts += 1
            time.sleep(chance.uniform(0.0, 0.002))


def _judge_ends(day: Day, running: dict[str, subprocess.Popen[bytes]], folder: Path) -> None:
    for name, process in running.items():
        if process.poll() is None:
            os.kill(process.pid, signal.SIGUSR1)
            time.sleep(0.5)
        if process.poll() != 0:
            how = "did not end" if process.poll() is None else f"ended with {process.returncode}"
            words = (folder / f"{name}.err").read_text(errors="replace")
            if len(words) > 2 * SOME_WORDS:
                words = f"{words[:SOME_WORDS]}\n…\n{words[-SOME_WORDS:]}"
            day.failures.append(f"{name} {how}: {words}")
