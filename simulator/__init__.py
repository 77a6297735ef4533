"""A double of Alpaca's stock stream: same protocol, invented or recorded quotes, and bad days on request.

Decides how the vendor behaves towards one websocket client, for the demo, the tests and anybody who wants to see
the daemon survive. Must never know the daemon: it shares with it the vendor's message types and trading hours, and
nothing else.

Its names are imported together, when the first one is asked for: a part that is not installed is told right there,
and yet whoever wants `simulator.redis_server` alone does not pay for a websocket server.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from simulator.account import FEEDS, AccountRules
    from simulator.chronicle import ClientAction, ClosedConnection, RestCall
    from simulator.connection import Connection
    from simulator.faults import (
        AckExtra,
        AckTwice,
        DelayAck,
        HangUp,
        IgnoreUnsubscribe,
        NoAck,
        NoAuthAnswer,
        NoGreeting,
        PartialAck,
        RefuseAuth,
        RefuseRequest,
        RefuseUpgrade,
    )
    from simulator.frames import SimQuote
    from simulator.market import Market, plausible_symbols
    from simulator.rest.faults import CutRest, HangRest, RefuseRest, SlowRest
    from simulator.run import simulate
    from simulator.script import BadScript, parse_script
    from simulator.server import AlpacaSimulator
    from simulator.settings import BadSettings, SimulatorSettings
    from simulator.tape import BadTape, read_tape, write_tape

__all__ = [
    "FEEDS",
    "AccountRules",
    "AckExtra",
    "AckTwice",
    "AlpacaSimulator",
    "BadScript",
    "BadSettings",
    "BadTape",
    "ClientAction",
    "ClosedConnection",
    "Connection",
    "CutRest",
    "DelayAck",
    "HangRest",
    "HangUp",
    "IgnoreUnsubscribe",
    "Market",
    "NoAck",
    "NoAuthAnswer",
    "NoGreeting",
    "PartialAck",
    "RefuseAuth",
    "RefuseRequest",
    "RefuseRest",
    "RefuseUpgrade",
    "RestCall",
    "SimQuote",
    "SimulatorSettings",
    "SlowRest",
    "parse_script",
    "plausible_symbols",
    "read_tape",
    "simulate",
    "write_tape",
]

_HOMES: Final = {
    "AccountRules": "simulator.account",
    "AckExtra": "simulator.faults",
    "AckTwice": "simulator.faults",
    "AlpacaSimulator": "simulator.server",
    "BadScript": "simulator.script",
    "BadSettings": "simulator.settings",
    "BadTape": "simulator.tape",
    "ClientAction": "simulator.chronicle",
    "ClosedConnection": "simulator.chronicle",
    "Connection": "simulator.connection",
    "CutRest": "simulator.rest.faults",
    "DelayAck": "simulator.faults",
    "FEEDS": "simulator.account",
    "HangRest": "simulator.rest.faults",
    "HangUp": "simulator.faults",
    "IgnoreUnsubscribe": "simulator.faults",
    "Market": "simulator.market",
    "NoAck": "simulator.faults",
    "NoAuthAnswer": "simulator.faults",
    "NoGreeting": "simulator.faults",
    "PartialAck": "simulator.faults",
    "RefuseAuth": "simulator.faults",
    "RefuseRequest": "simulator.faults",
    "RefuseRest": "simulator.rest.faults",
    "RefuseUpgrade": "simulator.faults",
    "RestCall": "simulator.chronicle",
    "SimQuote": "simulator.frames",
    "SimulatorSettings": "simulator.settings",
    "SlowRest": "simulator.rest.faults",
    "parse_script": "simulator.script",
    "plausible_symbols": "simulator.market",
    "read_tape": "simulator.tape",
    "simulate": "simulator.run",
    "write_tape": "simulator.tape",
}

if not TYPE_CHECKING:  # A checker that saw this would take any name for granted.

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals().update({each: getattr(import_module(home), each) for each, home in _HOMES.items()})
        return globals()[name]
