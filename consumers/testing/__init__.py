"""What a strategy's own tests need: a bus in memory, quotes to put on it, and recordings to play on it.

Decides the names that tests may rely on. Must never import the daemon or the simulator, nor fakeredis before a
server in memory is asked for.

With pytest, the fixture `quote_bus` is such a bus, and needs no import; `alpaca_simulator` is the vendor's double.
"""

from consumers.testing.builders import a_gap, a_quote, an_old_quote, quotes_of
from consumers.testing.memory import FakeRedisMissing, MemoryBus, MemoryServer, memory_bus
from consumers.testing.pace import Times
from consumers.testing.publisher import Publisher
from consumers.testing.recordings import BadRecording, read_recording, write_recording
from consumers.testing.replay import by_time, replay
from consumers.testing.times import DAY, Clock, Time, parse_time

__all__ = [
    "DAY",
    "BadRecording",
    "Clock",
    "FakeRedisMissing",
    "MemoryBus",
    "MemoryServer",
    "Publisher",
    "Time",
    "Times",
    "a_gap",
    "a_quote",
    "an_old_quote",
    "by_time",
    "memory_bus",
    "parse_time",
    "quotes_of",
    "read_recording",
    "replay",
    "write_recording",
]
