"""The catalogue of faults says what the tests show, no less and no more."""

import re
from pathlib import Path
from typing import Final

from tests.catalogue import (
    FAMILIES,
    PAGE,
    TABLE,
    Row,
    Shown,
    complaints,
    find_marks,
    marks_in,
    page,
    read_rows,
)

ROWS: Final = read_rows(TABLE.read_text())
SIZES: Final = {"S": 53, "K": 54, "C": 18, "P": 34, "Q": 31}
"""How many faults each family has; a row that goes missing is noticed."""


def test_every_row_has_a_test_or_a_reason() -> None:
    """Never neither, never both, and no mark names a row that is not there."""
    assert complaints(ROWS, find_marks()) == []


def test_the_page_is_up_to_date() -> None:
    """`make faults` would change nothing."""
    assert PAGE.read_text() == page(ROWS, find_marks()), "run `make faults`"


def test_rows_are_numbered_without_a_hole() -> None:
    """Each family counts from 01."""
    assert list(SIZES) == list(FAMILIES)
    assert [row.id for row in ROWS] == [
        f"{f}{n:02d}" for f, size in SIZES.items() for n in range(1, size + 1)
    ]


def test_a_row_is_one_line_of_a_table() -> None:
    """Sentences that end as such, without what would break a table."""
    for row in ROWS:
        for text in (row.fault, row.holds, row.why_not or "."):
            assert not re.search(r"[|\n]", text), row.id
            assert text.endswith("."), row.id


def test_marks_are_found_wherever_they_stand() -> None:
    """On functions of both kinds, several at once, and on single parameters."""
    source = """
@pytest.mark.fault("S01", "S02")
def test_a(): ...
@pytest.mark.parametrize("x", [pytest.param(1, marks=pytest.mark.fault("K01")), pytest.param(2)])
@pytest.mark.fault("K02")
async def test_b(): ...
@pytest.mark.slow
def test_c(): ...
"""
    assert dict(marks_in(source)) == {"test_a": ["S01", "S02"], "test_b": ["K01", "K02"]}


def test_what_is_wrong_is_said() -> None:
    """An unknown row, a row with neither test nor reason, and one with both, whatever the reason says."""
    rows = [
        Row("S01", ".", "."),
        Row("S02", ".", ".", "No."),
        Row("S03", ".", ".", "not shown yet"),
        Row("S04", ".", ".", "No."),
        Row("S05", ".", "."),
    ]
    marks = [Shown(row, Path("tests/test_x.py"), "test_x") for row in ("S02", "S03", "S05", "S99")]
    assert [line.split()[0] for line in complaints(rows, marks)] == ["tests/test_x.py:", "S01", "S02", "S03"]
