"""The shape of the tree, which reviews would let slip: sizes of files and functions, one test file per module, the
sample configuration, the length of decisions. A ratchet: no list of exceptions.
"""

from __future__ import annotations

import ast
from pathlib import Path

from lockbox_node import config

ROOT = Path(__file__).parent.parent
PRODUCT = ("protocol", "lockbox_node")
ROOMS = (*PRODUCT, "tests", "benchmarks", "simulations")
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70
NODE_LINES_MAX = 200
DECISION_LINES_MAX = 40


def modules(*rooms: str) -> list[Path]:
    """Every Python file of these rooms."""
    return sorted(path for room in rooms for path in (ROOT / room).rglob("*.py"))


def lines_of(path: Path) -> int:
    """Lines of a file."""
    return len(path.read_text().splitlines())


def test_no_file_is_longer_than_one_room() -> None:
    long = {str(path.relative_to(ROOT)): lines_of(path) for path in modules(*ROOMS) if lines_of(path) > FILE_LINES_MAX}
    assert not long


def test_the_composition_root_stays_small() -> None:
    assert lines_of(ROOT / "lockbox_node" / "node.py") <= NODE_LINES_MAX


def test_no_function_is_longer_than_a_screen() -> None:
    long = {
        f"{path.relative_to(ROOT)}:{node.name}": lines
        for path in modules(*ROOMS)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES_MAX
    }
    assert not long


def test_every_module_says_why_it_is_there() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in modules(*ROOMS)
        if path.name != "__init__.py" and ast.get_docstring(ast.parse(path.read_text())) is None
    ]
    assert not silent


def test_package_files_are_empty() -> None:
    assert not [str(path) for path in modules(*ROOMS) if path.name == "__init__.py" and path.read_text().strip()]


def test_neither_the_product_nor_the_simulations_import_tests() -> None:
    borrowed = [
        str(path.relative_to(ROOT))
        for path in modules(*PRODUCT, "simulations")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tests"
    ]
    assert not borrowed


def test_every_module_has_its_test_file() -> None:
    missing = [
        str(expected.relative_to(ROOT))
        for path in modules(*PRODUCT)
        if path.name != "__init__.py" and not (expected := suite_of(path)).exists()
    ]
    assert not missing


def suite_of(path: Path) -> Path:
    """Where the tests of a module stand: tests/protocol/test_x.py, tests/core/test_x.py, tests/test_x.py."""
    relative = path.relative_to(ROOT)
    folder = relative.parent if relative.parts[0] == "protocol" else relative.parent.relative_to("lockbox_node")
    return ROOT / "tests" / folder / f"test_{path.name}"


def test_the_sample_configuration_holds_the_defaults() -> None:
    assert config.load(ROOT / "config" / "node.toml") == config.Config()


def test_decisions_are_short() -> None:
    pages = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert pages
    assert not [page.name for page in pages if lines_of(page) > DECISION_LINES_MAX]
