"""Tables as text and Markdown."""

from simclr_tf.utils.tables import format_table


def test_format_table_aligns_text():
    table = format_table([("a", 1.5), ("longer", "–")], ("name", "value"))
    assert table.splitlines() == ["name      value", "a           1.5", "longer        –"]
    table = format_table([("a", 1.5), ("longer", "–")], ("name", "value"), align="rl")
    assert table.splitlines() == ["  name  value", "     a  1.5", "longer  –"]


def test_format_table_escapes_markdown():
    head, rule, row = format_table([("a|b\nc", "007")], ("x", "y"), markdown=True).splitlines()
    assert [cell.strip() for cell in row.replace("\\|", "!").split("|")[1:-1]] == ["a!b c", "007"]
    assert head.count("|") == rule.count("|") == 3 and rule.endswith(":|")


def test_format_table_accepts_no_rows():
    assert format_table([], ("x", "y")).split() == ["x", "y"]
