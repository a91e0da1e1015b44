"""Mutation testing: introduce a fault into a copy of the code and check that its test fails.

    python -m tests.mutation_testing                    # all mutations of tests/mutations.toml
    python -m tests.mutation_testing --sample=10        # ten of them, chosen by --seed
    python -m tests.mutation_testing --match=nt_xent    # those whose name, file or test contains it

First the tests of the selected mutations must pass on the unchanged code. Then each mutation is
applied to a copy of the code, and its test must fail. The exit status is 1 if a test does not fail.
"""

import argparse
import dataclasses
import random
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parent.parent
MUTATIONS_FILE = ROOT / "tests" / "mutations.toml"
_TESTS_FAILED = 1  # pytest's exit status; all other ones but 0 mean that the test did not run


@dataclasses.dataclass(frozen=True)
class Mutation:
    """A fault, and the test that must detect it."""

    name: str  # the fault in words
    file: str  # relative to the repository
    search: str  # occurs exactly once in the file
    replace: str
    test: str  # pytest node ID, or several with spaces between them; one of them must fail

    def apply(self, root: Path) -> None:
        """Applies the mutation to the tree in `root`."""
        path = root / self.file
        source = path.read_text(encoding="utf-8")
        count = source.count(self.search)
        if count != 1 or self.search == self.replace:
            raise ValueError(f"{self.name}: `search` occurs {count} times in {self.file}")
        path.write_text(source.replace(self.search, self.replace), encoding="utf-8")


def read_mutations(path: Path = MUTATIONS_FILE) -> list[Mutation]:
    """Reads the list of mutations."""
    with path.open("rb") as file:
        return [Mutation(**entry) for entry in tomllib.load(file)["mutation"]]


def copy_tree(target: Path) -> Path:
    """Copies what the tests need; the packages of the exporter and of flags lie in place."""
    for name in ("simclr_tf", "export", "flags", "tests", "docs"):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ROOT.iterdir():
        if file.is_file():
            shutil.copy(file, target / file.name)
    (target / "simclr_tf" / "exporter").symlink_to(target / "export")
    (target / "simclr_tf" / "flags").symlink_to(target / "flags")
    shared = ROOT.parent / "shared"
    if shared.is_dir():
        (target.parent / "shared").symlink_to(shared)
    return target


def run_tests(root: Path, tests: Sequence[str]) -> subprocess.CompletedProcess:
    """Runs tests in a tree, up to the first failure."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


def check_mutation(mutation: Mutation, root: Path) -> str:
    """Returns the problem if the test of a mutation does not fail in a tree, else nothing."""
    path = root / mutation.file
    original = path.read_bytes()
    try:
        mutation.apply(root)
        done = run_tests(root, mutation.test.split())
    except (OSError, ValueError) as error:
        return str(error)
    finally:
        path.write_bytes(original)
    if done.returncode == _TESTS_FAILED:
        return ""
    if done.returncode == 0:
        return f"{mutation.name}: {mutation.test} passes"
    return f"{mutation.name}: {mutation.test} does not run:\n{done.stdout[-2000:]}{done.stderr}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the selected mutations and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sample", type=int, help="number of mutations; default: all")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample")
    parser.add_argument("--match", default="", help="text in the name, the file or the test")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--file", type=Path, default=MUTATIONS_FILE, help="list of mutations")
    options = parser.parse_args(arguments)
    mutations = [
        mutation
        for mutation in read_mutations(options.file)
        if options.match in f"{mutation.name} {mutation.file} {mutation.test}"
    ]
    if options.sample is not None and options.sample < len(mutations):
        mutations = random.Random(options.seed).sample(mutations, options.sample)
    if not mutations:
        print(f"no mutation matches {options.match!r}")
        return 1

    with tempfile.TemporaryDirectory() as scratch:
        trees: SimpleQueue[Path] = SimpleQueue()
        for job in range(options.jobs):
            tree = Path(scratch) / f"job{job}" / "simclr_tf"
            tree.mkdir(parents=True)
            trees.put(copy_tree(tree))

        tests = sorted({test for mutation in mutations for test in mutation.test.split()})
        tree = trees.get()
        print(f"{len(tests)} tests on the unchanged code", flush=True)
        done = run_tests(tree, tests)
        trees.put(tree)
        if done.returncode != 0:
            print(done.stdout[-4000:], done.stderr)
            return 1

        def check(mutation: Mutation) -> str:
            tree = trees.get()
            try:
                return check_mutation(mutation, tree)
            finally:
                trees.put(tree)

        problems = 0
        with ThreadPoolExecutor(options.jobs) as pool:
            for mutation, problem in zip(mutations, pool.map(check, mutations), strict=True):
                print(problem or f"detected: {mutation.name}", flush=True)
                problems += bool(problem)
    print(f"{len(mutations) - problems} of {len(mutations)} mutations detected")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
