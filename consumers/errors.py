"""What a strategy may have to catch, sorted by what it would do about it.

Decides the sentences: each names the thing, the reason and the remedy. Must never let a password through, so it
only ever receives an address that `link.Target` has already stripped.
"""

from wire import CONTRACT_VERSION, BadNamespace, BadSymbol, Quote

__all__ = [
    "BadNamespace",
    "BadStart",
    "BadSymbol",
    "BadUrl",
    "BusClosed",
    "BusError",
    "BusUnavailable",
    "ContractTooNew",
    "ExtraMissing",
    "StaleQuote",
    "elsewhere",
    "forked",
    "whereabouts",
]


MEMORY = "memory://"
"""What the address of a server in this process begins with."""


def whereabouts(address: str) -> str:
    """What stands at an address, in words: a test's bus in memory has no server that could be to blame."""
    return f"the bus in memory ({address})" if address.startswith(MEMORY) else f"Redis at {address}"


class BusError(Exception):
    """Anything that this library raises of its own."""


class BadUrl(BusError, ValueError):
    """A Redis URL that cannot be used. The URL itself is not repeated: it may hold a password."""


class BadStart(BusError, ValueError):
    """A `start`, or an end of a range, that names no place in a stream."""


class BusClosed(BusError):
    """The bus was used before it was opened or after it was closed."""


class BusUnavailable(BusError):
    """Redis does not answer, or refuses us.

    `address` is where it was looked for, without credentials; `why` the reason and the remedy; `attempts` how often
    in a row it was tried; `is_passing` whether trying again later may help, as it would not with a wrong password.
    """

    def __init__(self, address: str, why: str, *, attempts: int = 1, is_passing: bool = True) -> None:
        tried = "" if attempts <= 1 else f" after {attempts} attempts"
        super().__init__(f"{whereabouts(address)} is not usable{tried}: {why}")
        self.address = address
        self.why = why
        self.attempts = attempts
        self.is_passing = is_passing


class ContractTooNew(BusError):
    """The daemon writes a later version of the contract, whose entries this library might misread."""

    def __init__(self, version: int) -> None:
        super().__init__(
            f"the daemon writes contract version {version}, this library reads up to {CONTRACT_VERSION}: "
            "install a newer quotebus here"
        )
        self.version = version


class ExtraMissing(BusError, ImportError):
    """A package that this needs is not installed. `package` is its name, `extra` is what brings it."""

    def __init__(self, package: str, purpose: str, extra: str) -> None:
        super().__init__(f'{package} is needed {purpose}: pip install "quotebus[{extra}]"')
        self.package = package
        self.extra = extra


class StaleQuote(BusError):
    """The newest known quote is older than the caller accepts, or there is none.

    `quote` is that quote all the same, None where nobody has one, and `age_s` the seconds since it was received, by
    the server's clock, without one infinite. `why` says what was tried.
    """

    def __init__(
        self, quote: Quote | None, age_s: float, max_age_s: float, *, symbol: str = "", why: str = ""
    ) -> None:
        self.symbol = symbol if quote is None else quote.symbol
        if quote is None:
            text = f"there is no quote of {self.symbol}"
        else:
            text = (
                f"the newest quote of {self.symbol} was received {age_s:.3f} s ago, which is more than "
                f"max_age_s={max_age_s:g}"
            )
        remedy = why or "ask quality() why, or take .quote of this error all the same"
        super().__init__(f"{text}: {remedy}")
        self.quote = quote
        self.age_s = age_s
        self.max_age_s = max_age_s
        self.why = why


def forked() -> BusError:
    """What to say in a process that was forked from the one that opened the bus."""
    return BusError(
        "this bus was opened in another process, from which this one was forked: a connection belongs to the "
        "process that opened it, so call connect() here too"
    )


def elsewhere() -> BusError:
    """What to say in another event loop than the one that opened the bus."""
    return BusError(
        "this bus was opened in another event loop: a connection belongs to its loop, and each asyncio.run() makes "
        "a new one, so call connect() in this one too, or use consumers.sync from threads"
    )


class NotCarried(BusError):
    """Something of alpaca-py's stream that is no quote was asked for; `channel` says what."""

    def __init__(self, channel: str) -> None:
        super().__init__(
            f"the bus carries quotes and no {channel}: take {channel} from Alpaca's REST service, or from "
            "alpaca-py's own stream, which needs a connection of its own beside the daemon's"
        )
        self.channel = channel
