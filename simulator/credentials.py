"""Who a client says it is, by the headers of an HTTP request.

Decides which of the vendor's spellings is meant. Must never know whether the credentials are right.
"""

from base64 import b64decode
from collections.abc import Mapping


def credentials_of(headers: Mapping[str, str]) -> tuple[str, str] | None:
    """Key and secret out of headers (lower-case names); None when there are none, `ValueError` when unreadable."""
    if "apca-api-key-id" in headers or "apca-api-secret-key" in headers:
        return headers.get("apca-api-key-id", ""), headers.get("apca-api-secret-key", "")
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if not scheme:
        return None
    if scheme.lower() == "basic":
        key, _, secret = b64decode(value, validate=True).decode().partition(":")
        return key, secret
    if scheme.lower() == "bearer":
        return "access_token", value.strip()
    raise ValueError(f"unknown scheme {scheme!r}")
