"""Commands as a real server reads them."""

import socket

import hiredis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingestor.resp import bulk, pack
from simulator.redis_server import RedisServer


def test_a_command_is_spelt_as_the_protocol_says() -> None:
    """Lengths in bytes, not in characters."""
    assert (
        pack("SET", "€", 12, b"\r\n")
        == b"*4\r\n$3\r\nSET\r\n$3\r\n\xe2\x82\xac\r\n$2\r\n12\r\n$2\r\n\r\n\r\n"
    )
    assert bulk("") == b"$0\r\n\r\n"


@given(parts=st.lists(st.binary(max_size=40) | st.text(max_size=20) | st.integers(), min_size=1, max_size=5))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_server_reads_what_was_packed(server: RedisServer, parts: list[str | bytes | int]) -> None:
    """Whatever the bytes, no argument becomes two or another command."""
    expected = [part if isinstance(part, bytes) else str(part).encode() for part in parts]
    reader = hiredis.Reader()
    with socket.create_connection(("127.0.0.1", server.port), 5) as link:
        link.sendall(pack("EVAL", "return ARGV", 0, *parts))
        while (reply := reader.gets()) is False:
            reader.feed(link.recv(65536))
    assert reply == expected
