"""Docstrings, help texts, messages and documentation keep to the wording of CONTRIBUTING.md."""

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Docstrings start with a noun or verb phrase, not with a dependent clause.
CLAUSE = re.compile(r"(What|Which|Whether|How|From|Of)\b")

# Vague words, and the plain ones instead.
REPLACEMENTS = {
    r"judge\w*": "evaluate",
    r"told": "logged, distinguished",
    r"mend\w*": "fix",
    r"go(es)? on": "resume, continue",
    r"looked": "read, inspected",
    r"kept": "cached, saved",
    r"at hand": "available",
    r"unless given": "by default",
}

# Stems of British spellings; American English is used throughout.
BRITISH = (
    r"analys(e|ed|ing)(?!\w)",
    "artefact",
    "behaviour",
    "catalogue",
    "centre",
    "colour",
    "favour",
    "grey",
    "honour",
    "labell(ed|ing)",
    "licence",
    "modell(ed|ing)",
    "mould",
    "neighbour",
    "(cancel|travel)l(ed|ing)",
    "(general|initial|local|maxim|minim|normal|optim|organ|parametr|penal|quant|random|real|recogn"
    "|regular|serial|special|standard|summar|synchron|token|util|vector|visual)is(e|ing|ation)",
)

# Names that users' commands and files contain, so that their spelling is fixed.
FIXED_NAMES = {
    "neighbours": "flag and keyword argument of embed",
    "nearest_neighbours": "TensorBoard tag, and a file name",
    "labelled.csv": "file of a run",
    "labelled_loss": "column of metrics.jsonl",
    "unlabelled": "split of STL-10 in TFDS",
    "aria-labelledby": "HTML attribute",
}

_FIXED = re.compile(rf"(?<!\w)(--)?({'|'.join(map(re.escape, FIXED_NAMES))})(?!\w)")
_FORBIDDEN = re.compile(
    rf"\b(?:{'|'.join(REPLACEMENTS)}|\w*(?:{'|'.join(BRITISH)})\w*)\b".replace(" ", r"[\s#]+")
)


def files(*patterns: str) -> list[Path]:
    return [path for pattern in patterns for path in sorted(ROOT.glob(pattern)) if path.is_file()]


def words_of(text: str) -> str:
    """Returns lower-case text in which `snake_case` and `CamelCase` are separate words."""
    text = _FIXED.sub(" ", text)
    return re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", text).lower()


def forbidden_words(text: str) -> list[str]:
    return [match.group() for match in _FORBIDDEN.finditer(words_of(text))]


def prose(path: Path) -> str:
    """Returns the text of a file; of a notebook that of its cells and outputs, without images."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    cells = json.loads(text)["cells"]
    outputs = [output.get("text", []) for cell in cells for output in cell.get("outputs", ())]
    return "\n".join(map("".join, [*(cell["source"] for cell in cells), *outputs]))


def docstrings(path: Path) -> list[tuple[str, str]]:
    """Returns (name, docstring or "") of the module, its classes and functions."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(prose(path))) if isinstance(node, kinds)]
    return [(getattr(n, "name", path.name), ast.get_docstring(n) or "") for n in nodes]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


CODE = files("simclr_tf/**/*.py", "export/**/*.py", "docs/*.py", "flags/*.py", "setup.py")
TESTS = [path for path in files("tests/**/*.py") if path != Path(__file__).resolve()]
DOCUMENTS = files("*.md", "docs/*.md", "docs/*.ipynb")
OTHERS = files(
    *("flags/*.flags", "simclr_tf/**/templates/*", "Makefile", ".ci/run", "pyproject.toml"),
    *("docs/*.sh", "docs/_static/*", "CITATION.cff", "constraints.txt", "tests/*.toml"),
)


def messages(path: Path) -> list[tuple[int, str]]:
    """Returns (line, source of the message) of the errors for users that a file raises."""
    nodes = [node for node in ast.walk(ast.parse(prose(path))) if isinstance(node, ast.Call)]
    errors = [n for n in nodes if isinstance(n.func, ast.Name) and n.func.id == "UserError"]
    return [(n.lineno, " ".join(map(ast.unparse, n.args))) for n in errors]


# Messages that are made elsewhere, or to which the caller adds the fix.
MESSAGES_WITH_A_FIX = re.compile(
    r"Fix: |expected\W.*\bgot\b|_HINT\}|_SET\}|_EITHER\}|\{hint\}|^\w+(\.reason|\(.*\))?$"
    r"|\{error\}(\. \{save_and_describe\(\)\})?'$|missing or unknown|\{(problem|explained)\}"
)


def test_errors_for_users_say_what_was_expected_and_got_or_name_a_fix():
    found = [(path, *message) for path in CODE for message in messages(path)]
    assert len(found) > 150
    assert [
        f"{name_of(path)}:{line}: {text}"
        for path, line, text in found
        if not MESSAGES_WITH_A_FIX.search(text)
    ] == []


def test_docstrings_start_with_a_noun_or_verb_phrase():
    assert [
        f"{name_of(path)}: {name}"
        for path in CODE + TESTS
        for name, docstring in docstrings(path)
        if CLAUSE.match(docstring)
    ] == []


def test_no_file_contains_a_forbidden_word():
    assert [
        f"{name_of(path)}: {word}"
        for path in CODE + TESTS + DOCUMENTS + OTHERS
        for word in forbidden_words(prose(path))
    ] == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("def judge_all(): ...", ["judge"]),
        ("class KeptFiles", ["kept"]),
        ("the run goes\n    # on", ["goes\n    # on"]),
        ("Unless given, colours are normalised", ["unless given", "colours", "normalised"]),
        ("--neighbours=5 writes labelled.csv and nearest_neighbours", []),
        ("the neighbours of labelled images", ["labelled"]),
        ("recommended, stoldx, goes one by one, supervised, noise, analyses", []),
    ],
)
def test_forbidden_words_are_found_also_in_identifiers(text, found):
    assert forbidden_words(text) == found
