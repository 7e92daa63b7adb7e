"""The layers of the package hold: who imports what, and that files and functions stay small."""

from __future__ import annotations

import ast
import importlib
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import katafs
from katafs.tree.nodes import Node

ROOT = Path(katafs.__file__).parent
# A module may import from its own layer and from those before it.
_LAYERS = "errors text caching owner directories process engine git kata html tree fuse mount demo cli __main__"
LAYERS = tuple(_LAYERS.split())
# Within the room of katas, likewise: its folders, and what stands beside them.
KATA_LAYERS = ("model", "views", "read", "record", "legacy", "compact", "store", "reader", "groups", "fsck")
# The only packages (or modules) that may import a foreign library
OWNERS = {
    "pyfuse3": {"fuse", "mount"},
    "pygit2": {"git"},
    "trio": {"fuse", "mount"},
    "click": {"cli"},
    "jinja2": {"html"},
    "markupsafe": {"html"},
    "prometheus_client": {"tree"},
    "pygments": {"html"},
    # git: openat2(2), for which Python has no function
    "ctypes": {"fuse", "git", "mount", "owner", "process"},
}
# Versions 0 and 1: what stands in these folders is imported from elsewhere by these modules only.
DOORS = {
    "katafs.kata.legacy": {
        "migrate",
        "pending",
        "plain_create",
        "plain_files",
        "plain_kata",
        "plain_rows",
        "plain_store",
    },
    "katafs.tree.legacy": {"pending_nodes", "plain_nodes"},
}
MODULES = sorted(ROOT.rglob("*.py"))

Rule = Callable[[Path], None]
RULES: list[tuple[Path, Rule]] = []


def of_modules(folder: Path) -> Callable[[Rule], Rule]:
    """What a function of a path asserts is so for each module below a folder."""

    def note(rule: Rule) -> Rule:
        RULES.append((folder, rule))
        return rule

    return note


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path) -> Iterator[str]:
    """The full names of the modules that a file imports, wherever the import stands."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(name: str) -> str | None:
    """The layer of a full name such as ``katafs.git.repo``; None for what is not katafs, or is the package itself."""
    parts = name.split(".")
    return parts[1] if parts[0] == "katafs" and len(parts) > 1 and parts[1] in LAYERS else None


@of_modules(ROOT)
def imports_go_down(path: Path) -> None:
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if own == "__init__":
        return
    assert own in LAYERS, f"{path} is in no layer"
    for name in imports(path):
        other = layer(name)
        if other is not None:
            assert LAYERS.index(other) <= LAYERS.index(own), f"{path} imports {name}"


@of_modules(ROOT / "kata")
def imports_go_down_within_katas(path: Path) -> None:
    own = path.relative_to(ROOT / "kata").parts[0].removesuffix(".py")
    for name in imports(path):
        if own != "__init__" and name.startswith("katafs.kata."):
            assert KATA_LAYERS.index(name.split(".")[2]) <= KATA_LAYERS.index(own), f"{path} imports {name}"


@of_modules(ROOT)
def foreign_libraries_have_one_owner(path: Path) -> None:
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    for name in imports(path):
        owners = OWNERS.get(name.split(".")[0])
        assert owners is None or own in owners, f"{path} imports {name}"


@of_modules(ROOT)
def versions_0_and_1_are_behind_doors(path: Path) -> None:
    if "legacy" in path.parts:
        return
    for name in imports(path):
        folder, _, rest = name.partition(".legacy.")
        doors = DOORS.get(f"{folder}.legacy")
        assert doors is None or not rest or rest.split(".")[0] in doors, f"{path} imports {name}"


@of_modules(ROOT / "fuse")
def requests_do_not_ask_what_a_node_is(path: Path) -> None:
    """What is done with a node it says itself: no kind of node is told from another by its class."""
    module = importlib.import_module(".".join(path.relative_to(ROOT.parent).with_suffix("").parts))
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
            named = (vars(module).get(name.id) for name in ast.walk(node.args[1]) if isinstance(name, ast.Name))
            assert not any(isinstance(found, type) and issubclass(found, Node) for found in named), (path, node.lineno)


@of_modules(ROOT)
def nobody_asks_which_layout_it_is(path: Path) -> None:
    """What differs between layouts a layout says itself."""
    if path.name != "layouts.py":
        assert list(layouts_compared(parsed(path))) == [], path


def layouts_compared(tree: ast.AST) -> Iterator[str]:
    """Comparisons of a layout, or of its name, with another; and questions for its class."""

    def is_layout(node: ast.expr) -> bool:
        if isinstance(node, ast.Attribute):
            is_one_of_them = ast.unparse(node.value) in ("Layout", "layouts")
            return node.attr == "layout" or is_one_of_them or (node.attr == "name" and is_layout(node.value))
        return isinstance(node, ast.Name) and node.id in ("layout", "Layout", "NATIVE", "SAVER", "OTHER")

    for node in ast.walk(tree):
        asked: list[ast.expr] = []
        if isinstance(node, ast.Compare):
            asked = [node.left, *node.comparators]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "type"):
            asked = node.args[:1]
        if any(map(is_layout, asked)):
            yield ast.unparse(node)


@of_modules(ROOT)
def files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 320, f"{path} is too long"
    for node in ast.walk(parsed(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 55, f"{path}: {node.name} has {length} lines"


@pytest.mark.parametrize(("folder", "rule"), RULES, ids=[rule.__name__ for _, rule in RULES])
def test_rule(folder: Path, rule: Rule) -> None:
    for path in MODULES:
        if path.is_relative_to(folder):
            rule(path)


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


def modules_imported(path: Path, known: set[str]) -> set[str]:
    """Those of the known modules that a file imports, wherever the import stands: of a package's modules not itself."""
    found: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names if names <= known else names | {node.module or ""}
    return found & known


def test_modules_import_one_another_in_no_circle() -> None:
    """Neither in functions, nor for types alone."""
    names = {module_name(path) for path in MODULES}
    graph = {module_name(path): modules_imported(path, names) for path in MODULES}
    TopologicalSorter(graph).prepare()
    graph["katafs.errors"].add("katafs.cli")
    with pytest.raises(CycleError):
        TopologicalSorter(graph).prepare()
    # such as it sees in functions, and under TYPE_CHECKING
    assert "katafs.html.pages" in graph["katafs.html.process"]
    assert "katafs.kata.store" in graph["katafs.cli.common"]


def test_no_two_modules_have_one_name() -> None:
    names = Counter(path.name for path in MODULES if not path.name.startswith("__"))
    assert [name for name, count in names.items() if count > 1] == []


def names_bound(path: Path) -> set[str]:
    """What the statements of a module import from elsewhere, define, and set."""
    found: set[str] = set()
    for node in parsed(path).body:
        if isinstance(node, ast.ImportFrom) and node.module != module_name(path):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            found |= {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
    return found


def test_no_name_in_a_package_is_that_of_a_module_in_it() -> None:
    """Importing the module, whenever that is, sets it in the package: there its name means something else from then."""
    for package in (path for path in MODULES if path.name == "__init__.py"):
        modules = {path.stem for path in package.parent.iterdir()}
        assert not names_bound(package) & modules, package


def test_folders_stay_small() -> None:
    files = Counter(path.parent for path in MODULES)
    assert [folder for folder, count in files.items() if count > 17] == []


def test_the_rules_can_fail() -> None:
    """The checks see imports inside functions, and know the layers of the real modules."""
    assert "pyfuse3" in set(imports(ROOT / "mount" / "session.py"))
    assert "pygit2" in set(imports(ROOT / "git" / "odb" / "objects.py"))
    assert layer("katafs.git.repo") == "git"
    assert layer("katafs.__version__") is None
    asked = (
        "tip.layout is not NATIVE",
        "layout.name == 'saver'",
        "isinstance(tip.layout, Layout)",
        "x is layouts.SAVER",
    )
    assert all(list(layouts_compared(ast.parse(text))) for text in asked)
    assert not list(layouts_compared(ast.parse("name not in tip.layout.shown_as_stored")))
    assert all(
        (ROOT.parent / f"{folder.replace('.', '/')}/{door}.py").is_file() for folder in DOORS for door in DOORS[folder]
    )
