"""The log's own thread: nobody waits for a reader, nothing grows, nothing is lost without being counted."""

import contextlib
import fcntl
import os
import select
import time
from collections.abc import Iterator

import pytest

from ingestor.log_lines import LogLines

LINE = "x" * 99 + "\n"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe of the smallest size that the kernel gives."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    yield reading, writing
    for fd in (reading, writing):
        with contextlib.suppress(OSError):
            os.close(fd)


def read_until(fd: int, size: int, timeout_s: float = 10.0) -> bytes:
    """So many bytes."""
    data = b""
    deadline_s = time.monotonic() + timeout_s
    while len(data) < size and select.select([fd], [], [], max(0.0, deadline_s - time.monotonic()))[0]:
        data += os.read(fd, 65536)
    return data


def test_lines_arrive_in_order(pipe: tuple[int, int]) -> None:
    """All of them, also those written last before the end."""
    lines = LogLines()
    lines.open(pipe[1])
    for n in range(20):
        lines.write(f"{n}\n")
    lines.close(10)
    assert read_until(pipe[0], 50).decode().split() == [str(n) for n in range(20)]
    assert lines.dropped == 0


@pytest.mark.fault("P25")
def test_a_reader_who_does_not_read_stops_nobody(pipe: tuple[int, int]) -> None:
    """The writer goes on at once, memory is bounded, what is given up is counted, and later lines are read."""
    lines = LogLines(max_waiting_bytes=10_000)
    lines.open(pipe[1])
    began_s = time.monotonic()
    for _ in range(1000):
        lines.write(LINE)
    assert time.monotonic() - began_s < 1.0
    # What waits, and what the pipe holds.
    assert 1000 - (10_000 + 4096) // 100 - 1 <= lines.dropped < 1000
    kept = 1000 - lines.dropped
    assert len(read_until(pipe[0], kept * 100)) == kept * 100
    lines.write("after\n")
    lines.close(10)
    assert read_until(pipe[0], 6) == b"after\n"
    assert kept + lines.dropped == 1000


@pytest.mark.fault("P25")
def test_a_reader_who_does_not_read_does_not_keep_the_process(pipe: tuple[int, int]) -> None:
    """Closing ends in time, and what was left is counted."""
    lines = LogLines(max_waiting_bytes=10_000)
    lines.open(pipe[1])
    for _ in range(100):
        lines.write(LINE)
    began_s = time.monotonic()
    lines.close(0.2)
    assert time.monotonic() - began_s < 5.0
    assert lines.dropped > 0
    # Let the thread out of the pipe.
    os.close(pipe[0])


@pytest.mark.fault("P25")
def test_a_reader_who_is_gone_is_no_error(pipe: tuple[int, int]) -> None:
    """Each line is counted."""
    os.close(pipe[0])
    lines = LogLines()
    lines.open(pipe[1])
    for _ in range(50):
        lines.write(LINE)
    lines.close(10)
    assert lines.dropped == 50


def test_a_descriptor_that_does_not_block_loses_nothing(pipe: tuple[int, int]) -> None:
    """Somebody else may have made it so: the thread waits for room by itself."""
    os.set_blocking(pipe[1], False)
    lines = LogLines()
    lines.open(pipe[1])
    for _ in range(100):
        lines.write(LINE)
    assert len(read_until(pipe[0], 10_000)) == 10_000
    lines.close(10)
    assert lines.dropped == 0


def test_a_line_larger_than_the_bound_passes_when_it_is_alone(pipe: tuple[int, int]) -> None:
    """A traceback is not lost for its length."""
    lines = LogLines(max_waiting_bytes=100)
    lines.open(pipe[1])
    lines.write("y" * 5000 + "\n")
    assert len(read_until(pipe[0], 5001)) == 5001
    lines.close(10)
