# SPDX-License-Identifier: Apache-2.0
import pytest

from bench.report import Table, markdown, short


def test_a_table_is_markdown_with_its_columns_aligned_figures_right() -> None:
    table = Table(["server", "us"], [["a", "1,000"], ["longer", "2"]], "As measured.")
    assert markdown(table) == (
        "| server |    us |\n|--------|-------|\n| a      | 1,000 |\n| longer |     2 |\n\nAs measured."
    )


def test_a_table_without_rows_or_note_is_its_headings() -> None:
    assert markdown(Table(["a", "b"], [])) == "| a | b |\n|---|---|"


def test_a_row_that_does_not_fit_the_headings_is_refused() -> None:
    with pytest.raises(ValueError, match="expected rows of 2 texts"):
        markdown(Table(["a", "b"], [["1", "2"], ["1"]]))


@pytest.mark.parametrize(
    ("value", "text"), [(1234567.8, "1,234,568"), (100.4, "100"), (99.44, "99.4"), (1.666, "1.67"), (0.01234, "0.0123")]
)
def test_a_figure_has_three_digits_or_all_before_the_point(value: float, text: str) -> None:
    assert short(value) == text
