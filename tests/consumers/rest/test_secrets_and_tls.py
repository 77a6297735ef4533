"""Over TLS as over plain HTTP a call ends when nobody waits for it; and nothing that is printed has a key in it."""

import asyncio
import logging
import ssl
import traceback
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme

from consumers.rest import AlpacaRest, RestError, RestUnavailable, Retry
from consumers.rest.asker import THREADS
from simulator import AlpacaSimulator
from simulator.rest.faults import CutRest, RefuseRest
from tests.consumers.rest.conftest import KEY, SECRET

CLOCK = (
    b'{"timestamp":"2025-11-13T09:30:00-05:00","is_open":true,'
    b'"next_open":"2025-11-14T09:30:00-05:00","next_close":"2025-11-13T16:00:00-05:00"}'
)


class HangingHost:
    """Answers the clock, and reads every other question without ever answering."""

    def __init__(self) -> None:
        self.url = ""
        self.hanging = 0
        self.ended = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, kept open from call to call."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                if b" /v2/clock" in head:
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(CLOCK), CLOCK))
                else:
                    self.hanging += 1
                    await reader.read()
                    self.ended += 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def tls_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[HangingHost]:
    """Such a host, with a certificate of an authority that the client trusts."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    host = HangingHost()
    server = await asyncio.start_server(host.serve, "localhost", 0, ssl=context)
    async with server:
        host.url = f"https://localhost:{server.sockets[0].getsockname()[1]}"
        yield host


async def test_a_cancelled_call_over_tls_ends_too(tls_host: HangingHost) -> None:
    """The other side sees the connection end, and the threads are free for the next calls."""
    async with AlpacaRest(
        KEY,
        SECRET,
        data_url=tls_host.url,
        trading_url=tls_host.url,
        timeout_s=60,
        retry=Retry(deadline_s=100),
    ) as rest:
        await rest.clock()
        for _ in range(2):
            already = tls_host.hanging
            async with asyncio.TaskGroup() as group:
                questions = [group.create_task(rest.latest_quotes(f"S{n}")) for n in range(THREADS)]
                async with asyncio.timeout(30):
                    while tls_host.hanging < already + THREADS:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                for question in questions:
                    question.cancel()
            assert (await rest.clock()).is_open
        async with asyncio.timeout(30):
            while tls_host.ended < tls_host.hanging:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_a_certificate_that_nobody_signed_is_refused(
    tls_host: HangingHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In words that name the remedy; the keys are not sent to such a host."""
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    async with AlpacaRest(KEY, SECRET, trading_url=tls_host.url, retry=Retry(attempts=1)) as rest:
        with pytest.raises(RestUnavailable, match="TLS"):
            await rest.clock()


async def test_no_key_is_logged_or_told(
    sim: AlpacaSimulator, rest: AlpacaRest, caplog: pytest.LogCaptureFixture
) -> None:
    """With every logger at its most talkative, and with the tracebacks of all that went wrong."""
    caplog.set_level(logging.DEBUG)
    told = []
    for fault in (RefuseRest(401), RefuseRest(404), RefuseRest(503), CutRest(), RefuseRest(429, reset_s=100)):
        sim.arm(fault, times=4)
        try:
            await rest.latest_quotes("AAPL")
        except RestError as error:
            told += traceback.format_exception(error)
        sim.heal()
    assert rest.calls == 1 + 1 + 4 + 4 + 1
    # The double's own log is its own affair.
    logged = [record.getMessage() for record in caplog.records if not record.name.startswith("simulator")]
    assert any("/v2/stocks/quotes/latest" in line for line in logged)
    text = "".join([*told, *logged, repr(rest)])
    assert SECRET not in text
    assert KEY not in text
