"""The contract that the daemon and every reader share: key names, quotes and gaps, entry ids, symbols.

Decides what stands in Redis and how it is spelt. Must never know who writes or reads it: no socket, no
asyncio, no Redis client, no clock. A program in another language needs this package's text and nothing else.
"""

from wire.gap import Gap, decode_gap, encode_gap
from wire.ids import ZERO_ID, EntryId, Placement, entry_id_at, place
from wire.keys import CONTRACT_VERSION, GAP_FIELD, QUOTE_FIELD, BadNamespace, Keyspace, account_of
from wire.quality import HEARTBEAT_LIMIT_S, QUIET_AFTER_S, STATUS_FIELDS, Level, Quality, QualityJudge
from wire.quote import (
    BadEntry,
    Quote,
    QuoteRow,
    decode_latest,
    decode_quote,
    encode_latest,
    encode_quote,
)
from wire.symbols import BadSymbol, Symbol, parse_symbol

__all__ = [
    "CONTRACT_VERSION",
    "GAP_FIELD",
    "HEARTBEAT_LIMIT_S",
    "QUIET_AFTER_S",
    "QUOTE_FIELD",
    "STATUS_FIELDS",
    "ZERO_ID",
    "BadEntry",
    "BadNamespace",
    "BadSymbol",
    "EntryId",
    "Gap",
    "Keyspace",
    "Level",
    "Placement",
    "Quality",
    "QualityJudge",
    "Quote",
    "QuoteRow",
    "Symbol",
    "account_of",
    "decode_gap",
    "decode_latest",
    "decode_quote",
    "encode_gap",
    "encode_latest",
    "encode_quote",
    "entry_id_at",
    "parse_symbol",
    "place",
]
