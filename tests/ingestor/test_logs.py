"""Log lines: they parse, and no secret is in any of them."""

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from ingestor.logs import Redactor, configure_logs, redactor

SECRET = "hunter2-do-not-show"
URL = "redis://user:pa55word@host:6379/0"


@pytest.fixture
def logs(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Any]]:
    """Configure logging for a test, and put everything back after it."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    libraries = {
        name: logging.getLogger(name).level for name in ("asyncio", "picows", "aiohttp.access", "websockets")
    }
    redactor.protect(SECRET)

    def configured(fmt: str = "json", level: str = "info") -> Any:
        configure_logs(level, fmt)
        return structlog.get_logger("test")

    yield configured
    root.handlers = handlers
    root.setLevel(level)
    for name, before in libraries.items():
        logging.getLogger(name).setLevel(before)
    redactor._secrets.discard(SECRET)
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """What was logged as JSON; nothing ever goes to standard output."""
    out, err = capsys.readouterr()
    assert out == ""
    return [json.loads(line) for line in err.splitlines()]


class Odd:
    """An object that no encoder knows."""

    def __repr__(self) -> str:
        return f"<Odd {SECRET} {URL}>"


def test_each_line_is_one_object(logs: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    """With time, level, what happened and its details, whatever they are."""
    logs().warning(
        "refused", symbol="A\nB", code=400, big=2**70, raw=b"\xff", names={"x": (1, 2)}, nan=float("nan")
    )
    (line,) = lines(capsys)
    assert (line["event"], line["level"], line["symbol"], line["code"]) == ("refused", "warning", "A\nB", 400)
    assert line["timestamp"].endswith("Z")


@pytest.mark.parametrize("fmt", ["json", "console"])
@pytest.mark.parametrize(
    "tell",
    [
        lambda log: log.info(f"the secret is {SECRET}, at {URL}"),
        lambda log: log.info("x", secret=SECRET, url=URL),
        lambda log: log.info("x", nested={"deep": [SECRET, URL]}),
        lambda log: log.info("x", reason=ValueError(SECRET, URL)),
        lambda log: log.info("x", odd=Odd()),
        lambda log: log.info("x", raw=f"{SECRET} {URL}".encode()),
        lambda _: logging.getLogger("library").warning("connecting to %s with %s", URL, SECRET),
    ],
    ids=["event", "value", "nested", "exception", "object", "bytes", "library"],
)
def test_no_secret_stands_in_a_line(
    logs: Callable[..., Any], capsys: pytest.CaptureFixture[str], fmt: str, tell: Callable[[Any], None]
) -> None:
    """Nor the password of a URL; wherever it was."""
    tell(logs(fmt))
    text = capsys.readouterr().err
    assert "[secret]" in text
    assert SECRET not in text
    assert "pa55word" not in text
    assert "host:6379" in text
    if fmt == "json":
        json.loads(text)


@pytest.mark.parametrize("fmt", ["json", "console"])
def test_no_secret_stands_in_a_traceback(
    logs: Callable[..., Any], capsys: pytest.CaptureFixture[str], fmt: str
) -> None:
    """Ours or a library's."""
    log = logs(fmt)
    try:
        int(f"{SECRET} at {URL}")
    except ValueError:
        log.exception("failed")
        logging.getLogger("library").exception("failed, too")
    text = capsys.readouterr().err
    assert text.count("ValueError") >= 2
    assert SECRET not in text
    assert "pa55word" not in text
    if fmt == "json":
        assert len([json.loads(line) for line in text.splitlines()]) == 2


def test_lines_of_libraries_look_like_ours(
    logs: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """With the library's name; their chatter is left out."""
    logs()
    logging.getLogger("library").warning("hm %d", 7)
    logging.getLogger("websockets.client").info("chatter")
    (line,) = lines(capsys)
    assert (line["event"], line["logger"], line["level"]) == ("hm 7", "library", "warning")


@pytest.mark.parametrize(("level", "count"), [("debug", 4), ("INFO", 3), ("warning", 2), ("error", 1)])
def test_the_level_is_as_chosen(
    logs: Callable[..., Any], capsys: pytest.CaptureFixture[str], level: str, count: int
) -> None:
    """In either case."""
    log = logs(level=level)
    for name in ("debug", "info", "warning", "error"):
        getattr(log, name)("x")
    assert len(lines(capsys)) == count


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("redis://u:p@h", "redis://u:[secret]@h"),
        ("redis://:p@h:1/0 and rediss://u:q@i", "redis://:[secret]@h:1/0 and rediss://u:[secret]@i"),
        ("redis://u:p@ss@h", "redis://u:[secret]@h"),
        ("redis://h:6379/0", "redis://h:6379/0"),
        ('{"url":"redis://h","mail":"x:y@z"}', '{"url":"redis://h","mail":"x:y@z"}'),
        ("at 12:30 someone@host", "at 12:30 someone@host"),
    ],
)
def test_only_the_password_of_a_url_goes(text: str, clean: str) -> None:
    """The rest stays readable."""
    assert Redactor().clean(text) == clean


def test_a_very_short_secret_does_not_blank_out_words() -> None:
    """Nor does none."""
    made = Redactor()
    made.protect("")
    made.protect("abc")
    assert made.clean("abcdef") == "abcdef"
