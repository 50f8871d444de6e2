"""The bench's tables."""

from tables import best_in_bold, number, table


def test_a_table_has_a_line_for_its_head_one_below_it_and_one_for_each_row():
    assert table(("a", "b"), [("1", "2")]) == ["| a | b |", "|---|---|", "| 1 | 2 |"]


def test_what_equals_the_best_of_its_column_as_shown_is_bold():
    rows = {"a": [30.04, 9.0, None], "b": [29.96, 10.0, None], "c": [29.94, None, None]}
    assert best_in_bold(rows) == [
        ["a", "**30.0**", "9.0", "-"], ["b", "**30.0**", "**10.0**", "-"], ["c", "29.9", "-", "-"]
    ]  # fmt: skip


def test_no_rows_have_no_best():
    assert best_in_bold({}) == []


def test_a_number_has_the_decimals_asked_for_and_a_dash_stands_for_none():
    assert (number(1.25, digits=2), number(2.0), number(None)) == ("1.25", "2.0", "-")
