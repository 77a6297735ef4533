"""The command line: `quotebus …`.

Decides names, options and exit codes (0 done, 1 failed, 2 wrong usage). Must never do a command's work: each lives
in a module of `ingestor.commands`, imported only when called, because a small command must answer at once.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ingestor import early_signals
from ingestor.commands import terminal

app = typer.Typer(
    name="quotebus",
    help="One process owns the Alpaca market-data socket; every strategy reads quotes from Redis.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
symbols_app = typer.Typer(
    help="The desired symbols: the set that redis-cli edits as well.", no_args_is_help=True
)
app.add_typer(symbols_app, name="symbols")

RedisUrl = Annotated[
    str, typer.Option("--redis-url", envvar="QUOTEBUS_REDIS_URL", help="Where Redis is.", show_default=True)
]
Namespace = Annotated[str, typer.Option(envvar="QUOTEBUS_NAMESPACE", help="First part of every key.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON, for programs.")]
SymbolNames = Annotated[list[str], typer.Argument(metavar="SYMBOL...", help="For example AAPL MSFT.")]
DEFAULT_REDIS_URL = "redis://127.0.0.1:6379/0"


def main() -> None:
    """Entry point of the `quotebus` script."""
    _load_dotenv()
    try:
        try:
            app()
        finally:
            terminal.flush()
    except BrokenPipeError:
        # The reader of a pipe has seen enough, as in `quotebus tail AAPL | head`.
        terminal.abandon_output()
        sys.exit(0)
    except OSError as error:
        # The daemon has a disk of its own that may be full.
        is_daemon = early_signals.command() == "run" and "--help" not in sys.argv
        if not terminal.is_of_output(error, only_if_it_fails_again=is_daemon):
            raise
        terminal.say_that_output_failed(error)
        sys.exit(1)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        from importlib import metadata

        typer.echo(f"quotebus {metadata.version('quotebus')}")
        raise typer.Exit


@app.command(epilog="Example: APCA_API_KEY_ID=… APCA_API_SECRET_KEY=… quotebus run")
def run(
    config: Annotated[
        Path | None,
        typer.Option(envvar="QUOTEBUS_CONFIG", help="A TOML file; the environment goes before it."),
    ] = None,
) -> None:
    """Run the daemon until SIGTERM or Ctrl-C; settings come from the environment, a .env file, or --config."""
    from ingestor.commands.run import run_daemon

    sys.exit(run_daemon(config))


@app.command(epilog="Example: quotebus demo --duration 15")
def demo(
    duration: Annotated[
        float | None, typer.Option(min=1.0, help="End so many s after the first quote.")
    ] = None,
    symbols: Annotated[int, typer.Option(min=1, max=10_000, help="How many symbols to begin with.")] = 12,
    rate: Annotated[float, typer.Option(min=1.0, help="Quotes per second over all symbols.")] = 300.0,
    redis_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the embedded server; 0 takes any free one.")
    ] = 6399,
) -> None:
    """Everything on this machine, no account: a Redis server, a double of Alpaca, the daemon, live quotes."""
    from ingestor.commands.demo import run_demo

    sys.exit(run_demo(duration_s=duration, symbol_count=symbols, rate=rate, redis_port=redis_port))


@app.command(epilog="Example: quotebus simulate --port 9120 --rate 500 --script bad-day.txt")
def simulate(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free port.")] = 9120,
    rest_port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Of the REST calls; default: the one after --port.", show_default=False
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    symbols: Annotated[int, typer.Option(min=1, help="Size of the synthetic market.")] = 500,
    rate: Annotated[
        float, typer.Option(min=0.0, help="Quotes per second over the subscribed symbols.")
    ] = 300.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same market.")] = 0,
    tape: Annotated[Path | None, typer.Option(help="Replay this CSV or CSV.gz.")] = None,
    tape_symbol: Annotated[
        str | None, typer.Option(help="Its symbol; default: the file name up to '-'.")
    ] = None,
    speed: Annotated[
        float, typer.Option(min=0.0, help="Tape speed; 1 as recorded, 0 as fast as it goes.")
    ] = 1.0,
    redate: Annotated[bool, typer.Option(help="Date the tape to now.")] = False,
    loop: Annotated[bool, typer.Option(help="Begin the tape again at its end.")] = False,
    script: Annotated[
        Path | None, typer.Option(help="A bad day: drops, mutes, refusals, line by line.")
    ] = None,
    symbol_limit: Annotated[int | None, typer.Option(min=1, help="Refuse more symbols with 405.")] = None,
    connection_limit: Annotated[int, typer.Option(min=1, help="Refuse more connections with 406.")] = 1,
    ghost_s: Annotated[
        float, typer.Option(min=0.0, help="A dropped connection keeps its slot so long.")
    ] = 90.0,
    calls_per_minute: Annotated[int, typer.Option(min=0, help="Refuse more REST calls with 429.")] = 200,
    market_hours: Annotated[
        str, typer.Option(help="What the REST clock says: always open, or in regular hours only.")
    ] = "always",
) -> None:
    """Be Alpaca's stock stream on a local websocket, and its REST calls beside it, good days and bad.

    Prints the stream's address, then that of REST: data and trading calls alike, with any key. REST remembers what
    the stream quoted; whatever was before is invented, the same each time. See the README for a script of faults.
    """
    from ingestor.commands.simulate import run_simulator

    sys.exit(
        run_simulator(
            host=host,
            port=port,
            rest_port=rest_port,
            symbol_count=symbols,
            rate=rate,
            seed=seed,
            tape=tape,
            tape_symbol=tape_symbol,
            tape_speed=speed,
            tape_redate=redate,
            tape_loop=loop,
            script=script,
            symbol_limit=symbol_limit,
            connection_limit=connection_limit,
            ghost_s=ghost_s,
            calls_per_minute=calls_per_minute,
            market_hours=market_hours,
        )
    )


@symbols_app.command("add", epilog="Example: quotebus symbols add AAPL MSFT BRK.B")
def symbols_add(
    symbols: SymbolNames, redis_url: RedisUrl = DEFAULT_REDIS_URL, namespace: Namespace = "quotes"
) -> None:
    """Add symbols to the desired set, as SADD does."""
    from ingestor.commands.symbols import add

    sys.exit(add(symbols, redis_url, namespace))


@symbols_app.command("rm", epilog="Example: quotebus symbols rm MSFT")
def symbols_rm(
    symbols: SymbolNames, redis_url: RedisUrl = DEFAULT_REDIS_URL, namespace: Namespace = "quotes"
) -> None:
    """Take symbols out of the desired set, as SREM does."""
    from ingestor.commands.symbols import remove

    sys.exit(remove(symbols, redis_url, namespace))


@symbols_app.command("ls", epilog="Example: quotebus symbols ls --json")
def symbols_ls(
    as_json: AsJson = False, redis_url: RedisUrl = DEFAULT_REDIS_URL, namespace: Namespace = "quotes"
) -> None:
    """List the desired symbols and what became of each."""
    from ingestor.commands.symbols import show

    sys.exit(show(as_json, redis_url, namespace))


@app.command(epilog="Example: quotebus status --json")
def status(
    as_json: AsJson = False, redis_url: RedisUrl = DEFAULT_REDIS_URL, namespace: Namespace = "quotes"
) -> None:
    """How the daemon fares, from its heartbeat on Redis; exit code 1 when there is no live daemon."""
    from ingestor.commands.status import show

    sys.exit(show(as_json, redis_url, namespace))


@app.command(epilog="Example: quotebus tail AAPL MSFT --count 100 --json")
def tail(
    symbols: SymbolNames,
    as_json: AsJson = False,
    count: Annotated[int | None, typer.Option("--count", "-n", min=1, help="End after so many.")] = None,
    start: Annotated[
        str,
        typer.Option(help="now, snapshot, earliest, an entry id, or a time such as 2026-01-05T14:30:00Z."),
    ] = "now",
    redis_url: RedisUrl = DEFAULT_REDIS_URL,
    namespace: Namespace = "quotes",
) -> None:
    """Print quotes and gaps as they come, until Ctrl-C."""
    from ingestor.commands.tail import follow

    sys.exit(follow(symbols, start, count, as_json, redis_url, namespace))


def _load_dotenv() -> None:
    path = Path(".env")
    if not path.exists():
        return
    from ingestor.dotenv_file import BadDotenv, load

    try:
        load(path)
    except BadDotenv as problem:
        print(f"quotebus: {problem}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
