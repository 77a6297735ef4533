"""`.env`: what it sets is set, and no line of it is passed over in silence."""

import os
from pathlib import Path

import pytest

from ingestor.dotenv_file import BadDotenv, load

SECRET = "hunter2-do-not-show"
NO_SETTING = "it is no setting; write it as NAME=value, with # before a comment"
NO_EQUALS = "it has no =; write it as NAME=value, with # before a comment"
NOT_CLOSED = "its quotation mark is not closed, or something follows where it is; close it at the end"
CLOSED_LATER = "its quotation mark is closed in a later line only; close it at the end of its own"


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the developer's own, and nothing left behind."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("QUOTEBUS_", "APCA_", "ALPACA_"))}
    monkeypatch.setattr(os, "environ", kept)


@pytest.mark.parametrize(
    ("content", "line", "says"),
    [
        (f"QUOTEBUS_NAMESPACE: {SECRET}", 1, NO_SETTING),
        (f"QUOTEBUS_NAMESPACE:{SECRET}", 1, NO_EQUALS),
        (f"QUOTEBUS_NAMESPACE {SECRET}", 1, NO_SETTING),
        ("QUOTEBUS_NAMESPACE", 1, NO_EQUALS),
        ("export APCA_API_KEY_ID", 1, NO_EQUALS),
        (f"# keys\n\n \nAPCA_API_KEY_ID: {SECRET}\nA=b\n", 4, NO_SETTING),
        (f"A=b\r\n\r\nAPCA_API_KEY_ID: {SECRET}\r\n", 3, NO_SETTING),
        (f"={SECRET}", 1, NO_SETTING),
        (f"'A=B'={SECRET}", 1, NO_SETTING),
        (f'A=b\nQUOTEBUS_NAMESPACE="{SECRET}\nQUOTEBUS_FEED=sip\n', 2, NOT_CLOSED),
        (f"A=b\nQUOTEBUS_NAMESPACE='{SECRET}\nQUOTEBUS_FEED=sip\n", 2, NOT_CLOSED),
        (f'QUOTEBUS_NAMESPACE="{SECRET}" x', 1, NOT_CLOSED),
        (f'QUOTEBUS_NAMESPACE="{SECRET}\nQUOTEBUS_FEED="sip"\n', 1, NOT_CLOSED),
        (f'QUOTEBUS_NAMESPACE="{SECRET}\nQUOTEBUS_FEED=sip"\n', 1, CLOSED_LATER),
        (f"OTHER='{SECRET}\nQUOTEBUS_FEED=sip\nMORE=x'\n", 1, CLOSED_LATER),
    ],
)
def test_a_line_that_sets_nothing_is_told_with_its_number(
    tmp_path: Path, content: str, line: int, says: str
) -> None:
    """With the file, without what stands there, and nothing of the file is put in force."""
    path = tmp_path / ".env"
    path.write_text(content, newline="")
    before = dict(os.environ)
    with pytest.raises(BadDotenv) as caught:
        load(path, os.environ)
    assert str(caught.value) == f"{path}, line {line}: {says}"
    assert os.environ == before


def test_what_is_well_written_is_set_and_the_environment_goes_before_it(tmp_path: Path) -> None:
    """Comments, quotes, `export`, blank lines, names of others alone, and values of others with line ends."""
    os.environ["QUOTEBUS_FEED"] = "iex"
    path = tmp_path / ".env"
    path.write_text(
        "# all of it\n[section]\n\nexport QUOTEBUS_NAMESPACE='good' # why\nQUOTEBUS_FEED=sip\n"
        "QUOTEBUS_FEED\nOTHER\n"
        'APCA_API_KEY_ID = "k"\nPEM="a\nb"\nQUOTEBUS_INSTANCE="a # b"\nEMPTY=\n'
    )
    load(path, os.environ)
    assert os.environ["QUOTEBUS_NAMESPACE"] == "good"
    assert os.environ["QUOTEBUS_FEED"] == "iex"
    assert os.environ["APCA_API_KEY_ID"] == "k"
    assert os.environ["PEM"] == "a\nb"
    assert os.environ["QUOTEBUS_INSTANCE"] == "a # b"
    assert "OTHER" not in os.environ
