"""A double of Alpaca's stock stream: same protocol, invented or recorded quotes, and bad days on request.

Decides how the vendor behaves towards one websocket client, for the demo, the tests and anybody who wants to see
the daemon survive. Must never know the daemon: it shares with it the vendor's message types and nothing else.
"""

from simulator.account import FEEDS, AccountRules
from simulator.connection import Connection
from simulator.faults import (
    AckExtra,
    DelayAck,
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
from simulator.run import simulate
from simulator.script import BadScript, parse_script
from simulator.server import AlpacaSimulator, ClientAction, ClosedConnection
from simulator.settings import BadSettings, SimulatorSettings
from simulator.tape import BadTape, read_tape, write_tape

__all__ = [
    "FEEDS",
    "AccountRules",
    "AckExtra",
    "AlpacaSimulator",
    "BadScript",
    "BadSettings",
    "BadTape",
    "ClientAction",
    "ClosedConnection",
    "Connection",
    "DelayAck",
    "IgnoreUnsubscribe",
    "Market",
    "NoAck",
    "NoAuthAnswer",
    "NoGreeting",
    "PartialAck",
    "RefuseAuth",
    "RefuseRequest",
    "RefuseUpgrade",
    "SimQuote",
    "SimulatorSettings",
    "parse_script",
    "plausible_symbols",
    "read_tape",
    "simulate",
    "write_tape",
]
