"""The list of mutations matches the code, and undetected mutations are reported."""

import ast

import pytest

from tests.mutation_testing import MUTATIONS_FILE, ROOT, main, read_mutations

MUTATIONS = read_mutations()


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_mutation_applies_to_the_code_and_names_a_test(mutation):
    source = (ROOT / mutation.file).read_text(encoding="utf-8")
    assert source.count(mutation.search) == 1
    ast.parse(source.replace(mutation.search, mutation.replace))
    for test in mutation.test.split():
        file, _, name = test.partition("::")
        functions = {
            node.name
            for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8")))
            if isinstance(node, ast.FunctionDef)
        }
        assert name.partition("[")[0] in functions


def test_names_of_mutations_are_unique():
    names = [mutation.name for mutation in MUTATIONS]
    assert len(set(names)) == len(names)


@pytest.mark.slow
def test_undetected_mutation_is_reported(tmp_path, capsys):
    _, first, *_ = MUTATIONS_FILE.read_text(encoding="utf-8").split("[[mutation]]")
    harmless = """
[[mutation]]
name = "a comment"
file = "simclr_tf/errors.py"
search = "class UserError"
replace = "# Nothing else changes.\\nclass UserError"
test = "tests/optimizers/test_schedules.py"
"""
    (tmp_path / "mutations.toml").write_text(f"[[mutation]]{first}{harmless}", encoding="utf-8")
    assert main([f"--file={tmp_path / 'mutations.toml'}"]) == 1
    output = capsys.readouterr().out
    assert "detected: " in output
    assert "a comment: tests/optimizers/test_schedules.py passes" in output
    assert "1 of 2 mutations detected" in output
