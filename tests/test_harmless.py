"""Other people's words as a line of text and as a cell of a CSV file."""

import pytest

from genbench.harmless import clean, csv_cell


def test_clean_removes_what_moves_or_hides_text():
    assert clean("a\u202eb\nc\td\x00e\u200bf") == "ab c d ef"
    assert clean("x" * 500, 10) == "x" * 9 + "…"


@pytest.mark.parametrize("cell", ["=HYPERLINK(1)", "+1", "-1", "@SUM(A1)", "=cmd|' /C calc'!A0"])
def test_csv_cells_are_no_formulas(cell):
    assert csv_cell(cell) == "'" + cell
    assert csv_cell(-1.5) == -1.5
    assert csv_cell("dcgan") == "dcgan"
    assert (len(csv_cell("x" * 500)), len(csv_cell("x" * 500, 1000))) == (200, 500)
