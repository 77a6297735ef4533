"""TLS for a server that has none: a front with throw-away certificates, good ones and bad ones.

Decides what a client finds when it shakes hands. Must never know what is said behind it: any TCP server will do.
"""

import asyncio
import contextlib
import hashlib
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import serialization

LONG_AGO: Final = datetime(2020, 1, 1, tzinfo=UTC)


class Authority:
    """Issues certificates. Who is to trust it gets `file`, for instance as `SSL_CERT_FILE` in the environment."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._ca = trustme.CA()
        self._folder = folder
        self.file = folder / f"{name}.pem"
        self._ca.cert_pem.write_to_path(self.file)

    def certificate(self, *names: str, expired: bool = False) -> trustme.LeafCert:
        """One for these host names and addresses, `localhost` and 127.0.0.1 if none is given."""
        hosts = names or ("localhost", "127.0.0.1")
        return self._ca.issue_cert(*hosts, not_after=LONG_AGO if expired else None)

    @property
    def pem(self) -> str:
        """Its own certificate as text."""
        return self._ca.cert_pem.bytes().decode()

    def hashed_folder(self) -> Path:
        """A folder with its certificate under the name by which OpenSSL looks for it, as `openssl rehash` does it:
        the SHA-1 of the subject in canonical form, https://docs.openssl.org/master/man3/X509_NAME_hash/."""
        subject = x509.load_pem_x509_certificate(self._ca.cert_pem.bytes()).subject
        canonical = [
            x509.NameAttribute(part.oid, " ".join(str(part.value).lower().split())) for part in subject
        ]
        body = x509.Name(canonical).public_bytes()
        # Without the head of the outermost sequence: two bytes, or more for a long one.
        body = body[2 + (body[1] & 0x7F if body[1] & 0x80 else 0) :]
        digest = hashlib.sha1(body, usedforsecurity=False).digest()[:4][::-1].hex()
        folder = self._folder / f"{self.file.stem}-hashed"
        folder.mkdir()
        (folder / f"{digest}.0").write_bytes(self._ca.cert_pem.bytes())
        return folder

    def client_files(self, password: str = "") -> tuple[Path, Path]:
        """A client's certificate and its key, encrypted with a password if there is one; the paths of both."""
        certificate = self._ca.issue_cert("client@strategies.example")
        stem = f"{self.file.stem}-client{'-encrypted' if password else ''}"
        cert_file, key_file = self._folder / f"{stem}.pem", self._folder / f"{stem}.key"
        certificate.cert_chain_pems[0].write_to_path(cert_file)
        key = serialization.load_pem_private_key(certificate.private_key_pem.bytes(), None)
        encryption = (
            serialization.BestAvailableEncryption(password.encode())
            if password
            else serialization.NoEncryption()
        )
        key_file.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        )
        return cert_file, key_file


class TlsFront:
    """Ends TLS and forwards what comes out of it to a port; an async context manager.

    `accepted` counts connections, `shaken` those whose handshake succeeded. While `stalls`, connections are
    accepted and nothing is answered. With `clients` only those are let in who show a certificate of that authority.
    """

    def __init__(
        self,
        port: int,
        certificate: trustme.LeafCert,
        host: str = "localhost",
        *,
        clients: Authority | None = None,
    ) -> None:
        self._target = port
        self._clients = clients
        self._host = host
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[object]] = set()
        self.accepted = self.shaken = 0
        self.stalls = False
        self.present(certificate)

    def present(self, certificate: trustme.LeafCert) -> None:
        """Show this one from the next handshake on."""
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate.configure_cert(self._context)
        if self._clients is not None:
            self._context.verify_mode = ssl.CERT_REQUIRED
            self._context.load_verify_locations(self._clients.file)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await asyncio.gather(*self._serving)
        await self._server.wait_closed()

    @property
    def port(self) -> int:
        """Where it listens, on 127.0.0.1."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    def url(self, scheme: str, path: str = "") -> str:
        """Its address, by the name that good certificates are for."""
        return f"{scheme}://{self._host}:{self.port}{path}"

    def cut(self) -> None:
        """Abort every connection."""
        for writer in list(self._writers):
            _abort(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        self._writers.add(writer)
        try:
            if self.stalls:
                await reader.read()
            else:
                await self._forward(reader, writer)
        except (OSError, ssl.SSLError):
            pass
        finally:
            self._writers.discard(writer)
            _abort(writer)
            self._serving.discard(task)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await writer.start_tls(self._context, ssl_handshake_timeout=5.0)
        self.shaken += 1
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers.add(far_writer)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, far_writer))
                group.create_task(_pump(far_reader, writer))
        finally:
            self._writers.discard(far_writer)
            _abort(far_writer)


def _abort(writer: asyncio.StreamWriter) -> None:
    # Python before 3.11.4 forgets what carries a TLS connection that has ended, and stumbles over it.
    with contextlib.suppress(AttributeError):
        writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, ssl.SSLError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    # What the one side has ended, the other shall not wait for.
    writer.close()
