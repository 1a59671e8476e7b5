"""The shape of the source tree: who may import what, and promises that documents make about files."""

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("sites", "proposer", "policy", "evaluator", "rl", "launch")
"""Each package may import itself and those before it; sites stands alone."""
OWNERS = {
    "playwright": ("policy/browser*.py",),
    "ray": ("launch/workers.py",),
    "wandb": ("launch/tracking.py",),
    "fsspec": ("launch/storage.py",),
    "gymnasium": ("launch/environment.py",),
    "browsergym": (),
    "torch": ("rl/*.py",),
    "transformers": ("rl/*.py",),
    "peft": ("rl/*.py",),
    "vllm": (),
}
"""Heavy libraries, and the only files that may import them."""
SOURCES = sorted(path.relative_to(ROOT) for package in LAYERS for path in (ROOT / package).rglob("*.py"))
DOCUMENTS = sorted(path.relative_to(ROOT) for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")))


def imported(path: Path) -> set[str]:
    """Dotted names of the modules that a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names.add(node.module)
    return {name for name in names if name}


def calls(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every call by name in a file."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            yield node.lineno, ast.unparse(node.func)


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_imports_go_one_way(path: Path) -> None:
    package = path.parts[0]
    allowed = {"sites"} if package == "sites" else set(LAYERS[: LAYERS.index(package) + 1])
    ours = {name.partition(".")[0] for name in imported(path)} & set(LAYERS)
    assert ours <= allowed


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_heavy_libraries_are_imported_only_by_their_owners(path: Path) -> None:
    heavy = {name.partition(".")[0] for name in imported(path)} & set(OWNERS)
    trespassed = {name for name in heavy if not any(fnmatch(str(path), owner) for owner in OWNERS[name])}
    assert not trespassed


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_packages_neither_print_nor_sleep(path: Path) -> None:
    found = [f"{path}:{line} {name}" for line, name in calls(path) if name in ("print", "time.sleep", "sleep")]
    assert not found


def test_no_module_is_named_after_something_it_could_shadow() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    libraries = {re.split(r"[^a-z0-9_-]", line.lower())[0].replace("-", "_") for line in wanted}
    names = {path.stem if path.stem != "__init__" else path.parent.name for path in SOURCES} - {"__main__"}
    assert not names & (libraries | sys.stdlib_module_names | set(OWNERS))


@pytest.mark.parametrize("package", LAYERS)
def test_each_package_is_the_one_in_this_checkout(package: str) -> None:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin == str(ROOT / package / "__init__.py")


def test_reading_a_config_loads_no_heavy_library() -> None:
    script = f"import sys, launch.config; print(*sorted(set(sys.modules) & {set(OWNERS)!r}))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_files_named_in_documents_exist(document: Path) -> None:
    text = (ROOT / document).read_text()
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    missing = [link for link in links if link and not (ROOT / document.parent / link).exists()]
    folders = "|".join((*LAYERS, "tests", "docs", "bench"))
    quoted = re.findall(rf"`((?:{folders})/[\w./-]*)`", text)
    missing += [path for path in quoted if not (ROOT / path).exists()]
    assert not missing
