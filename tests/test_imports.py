"""Imports go one way: simulation -> client, server -> protocol -> strategies, and client, server -> urwkv."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

ALLOWED = {
    "urwkv": set(),
    "strategies": set(),
    "protocol": {"strategies"},
    "client": {"protocol", "strategies", "urwkv"},
    "server": {"protocol", "strategies", "urwkv"},
    "simulation": {"client", "server", "protocol", "strategies", "urwkv"},
    "fedurwkv": {"client", "server", "simulation", "protocol"},
}


def ours(path: Path) -> set[str]:
    """The folders of ours that a file imports, wherever in the file it does."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(str(node.module).partition(".")[0])
    return names & ALLOWED.keys()


FILES = [path for folder in ALLOWED for path in (ROOT / folder).rglob("*.py")] + [ROOT / "fedurwkv.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_along_the_arrows(path: Path) -> None:
    folder = path.relative_to(ROOT).parts[0].removesuffix(".py")
    assert ours(path) <= ALLOWED[folder] | {folder}


def test_docker_never_becomes_a_package() -> None:
    assert not (ROOT / "docker" / "__init__.py").exists()
