"""TLS with Redis: what a URL's options make of a handshake, and what its failure means in words.

Decides whom to trust and what is told. Must never open a socket: contexts are made here, and used by whoever
connects. They are made anew for each connection, so that renewed files are heeded.
"""

import re
import ssl
from pathlib import Path
from typing import Final

from wire.redis.url import BadRedisUrl, Tls

_HASHED: Final = re.compile(r"[0-9a-f]{8}\.[0-9]+")
_EXPIRED, _NOT_YET, _OTHER_NAME, _OTHER_ADDRESS = 10, 9, 62, 64
"""Of X509_V_ERR_…, https://docs.openssl.org/master/man3/X509_STORE_CTX_get_error/."""
_NO_TLS: Final = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST")
_NOTHING_IN_COMMON: Final = (
    "PROTOCOL_VERSION",
    "UNSUPPORTED_PROTOCOL",
    "NO_SHARED_CIPHER",
    "NO_PROTOCOLS_AVAILABLE",
    "INSUFFICIENT_SECURITY",
)
_WANTS_OURS: Final = ("CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE")
_REFUSES_OURS: Final = (
    "UNKNOWN_CA",
    "BAD_CERTIFICATE",
    "CERTIFICATE_EXPIRED",
    "CERTIFICATE_REVOKED",
    "CERTIFICATE_UNKNOWN",
    "UNSUPPORTED_CERTIFICATE",
    "ACCESS_DENIED",
    "DECRYPT_ERROR",
)


class _KeyIsEncrypted(Exception):
    pass


def client_context(tls: Tls) -> ssl.SSLContext:
    """The context of one handshake. Reads the files that are named; `BadRedisUrl` says which cannot be used."""
    has_own = bool(tls.ca_certs or tls.ca_path or tls.ca_data)
    for name in ("ca_certs", "certfile", "keyfile"):
        _check_file(name, getattr(tls, name))
    _check_folder(tls.ca_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion[tls.min_version]
    context.check_hostname = tls.check_hostname and tls.cert_reqs != "none"
    context.verify_mode = ssl.VerifyMode[f"CERT_{tls.cert_reqs.upper()}"]
    if not has_own:
        context.load_default_certs()
    else:
        _load_authorities(context, tls)
    if tls.certfile is not None:
        _load_own(context, tls)
    if tls.ciphers is not None:
        try:
            context.set_ciphers(tls.ciphers)
        except ssl.SSLError:
            raise BadRedisUrl("ssl_ciphers names no cipher that there is: see `openssl ciphers`") from None
    return context


def explain(error: BaseException) -> str | None:
    """Why a handshake failed and what to do about it, in one sentence; None for anything else."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _explain_certificate(error)
    if not isinstance(error, ssl.SSLError):
        return None
    reason = error.reason or str(error)
    if any(word in reason for word in _NO_TLS):
        said = "what answers there does not speak TLS: write redis:// for it, or give the port that does"
    elif any(word in reason for word in _REFUSES_OURS) and "ALERT" in reason:
        said = "the server refuses our certificate: give one by an authority that it trusts in ssl_certfile"
    elif any(word in reason for word in _WANTS_OURS):
        said = (
            "the server asks for a certificate of ours, or a cipher of its own: see ssl_certfile, ssl_keyfile"
        )
    elif any(word in reason for word in _NOTHING_IN_COMMON):
        said = "the server and we have no version of TLS or no cipher in common: see ssl_min_version, ssl_ciphers"
    elif "EOF" in reason:
        said = "the server ended the connection amid TLS: is this its TLS port?"
    else:
        said = "TLS failed"
    return f"{said} ({reason})"


def _explain_certificate(error: ssl.SSLCertVerificationError) -> str:
    told = error.verify_message
    match error.verify_code:
        case code if code == _EXPIRED:
            remedy = "have it renewed on the server; until then nothing is sent there"
        case code if code == _NOT_YET:
            remedy = "compare the clocks of both machines"
        case code if code in (_OTHER_NAME, _OTHER_ADDRESS):
            remedy = "give the host by a name that it has, or ssl_check_hostname=false if that cannot be"
        case _:
            remedy = "name the authority that issued it in ssl_ca_certs"
    return f"the server's certificate is not accepted: {told.rstrip('.')}; {remedy}"


def _check_file(name: str, path: str | None) -> None:
    if path is None:
        return
    try:
        with Path(path).open("rb"):
            pass
    except (OSError, ValueError) as error:
        raise BadRedisUrl(_unreadable(f"ssl_{name}", path, error)) from None


def _check_folder(path: str | None) -> None:
    if path is None:
        return
    try:
        names = [entry.name for entry in Path(path).iterdir()]
    except (OSError, ValueError) as error:
        raise BadRedisUrl(_unreadable("ssl_ca_path", path, error)) from None
    if not any(_HASHED.fullmatch(name) for name in names):
        raise BadRedisUrl(
            f"ssl_ca_path={path} has no certificates under the names by which OpenSSL finds them: "
            f"run openssl rehash {path}, or name a file in ssl_ca_certs"
        )


def _unreadable(option: str, path: str, error: OSError | ValueError) -> str:
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"{option}={path} cannot be read ({why}): give a file that this user may read"


def _load_authorities(context: ssl.SSLContext, tls: Tls) -> None:
    for option, arguments in (
        (f"ssl_ca_certs={tls.ca_certs}", {"cafile": tls.ca_certs}),
        (f"ssl_ca_path={tls.ca_path}", {"capath": tls.ca_path}),
        ("ssl_ca_data", {"cadata": tls.ca_data}),
    ):
        if next(iter(arguments.values())) is None:
            continue
        try:
            context.load_verify_locations(**arguments)
        except (ssl.SSLError, ValueError, OSError):
            raise BadRedisUrl(f"{option} holds no certificate that can be read: it must be PEM") from None


def _load_own(context: ssl.SSLContext, tls: Tls) -> None:
    assert tls.certfile is not None

    def password() -> str:
        # Without this OpenSSL would ask on the terminal, and wait.
        if tls.password is None:
            raise _KeyIsEncrypted
        return tls.password

    key = f"ssl_keyfile={tls.keyfile}" if tls.keyfile else f"ssl_certfile={tls.certfile}"
    try:
        context.load_cert_chain(tls.certfile, tls.keyfile, password)
    except _KeyIsEncrypted:
        raise BadRedisUrl(f"the key in {key} is encrypted: give its password in ssl_password") from None
    except (ssl.SSLError, ValueError, OSError) as error:
        reason = getattr(error, "reason", "") or ""
        if "MISMATCH" in reason:
            raise BadRedisUrl(
                f"the key in {key} does not belong to the certificate in ssl_certfile={tls.certfile}"
            ) from None
        if tls.password is not None:
            raise BadRedisUrl(
                f"the key in {key} cannot be opened: ssl_password is wrong, or it is no key in PEM"
            ) from None
        raise BadRedisUrl(
            f"ssl_certfile={tls.certfile} and its key ({key}) cannot be read: both must be PEM, "
            "the certificate first"
        ) from None
