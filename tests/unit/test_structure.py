"""The shape of the code, held by reading its imports (DESIGN.md, section 3)."""

import ast
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "pipeline"

# Imports go downward only. A module that is not named here is vocabulary and stands at the bottom.
LAYERS = (
    ("__main__",),
    ("cli",),
    ("commands",),
    ("registry_commands", "card_commands", "operator_commands", "render_commands"),
    ("flow",),
    ("selection",),
    ("overview", "jobs", "node_commands"),
    ("republishing",),  # also what was fetched
    (
        "release",
        "noop",
        "judging",
        "simulating",
        "bisecting",
        "submitting",
        "collecting",
        "verifying",
        "fetching",
        "withdrawals",
        "doctor",
    ),
    (
        "steps",
        "rewriting",
        "stage_run",
        "promote_step",
    ),  # how each stage ends; cards without a stage
    ("accuracy_step", "operators_step", "rehearse_step", "attest_step"),
    ("cell_release", "probes"),  # what every stage is given; how a search and a check ask
    ("plan", "project", "serve"),  # what release reads and tells the stages
    ("suite",),  # what the stacks are asked
    ("about",),
    ("stages",),
    ("registry_checkup",),  # what doctor asks of a registry
    ("parts",),  # what a stage's key is made of, stage files and engine arguments included
    ("admission",),  # who may be promoted
    ("layers", "staging"),  # what images are made of, and where they lie before they are public
    ("gate", "world"),
)
BOTTOM = len(LAYERS)
MAY_SHARE_A_LAYER_WITH_ITSELF = ("gate", "world", "probes")

# Each outside thing has one door.
DOORS = {"subprocess": "world/command.py", "docker": "world/engine", "requests": "world/"}

# Built from parts, so that this file does not name them either.
PACKAGE_HOSTS = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("files", "pythonhosted", "org"),
        ("deb", "debian", "org"),
        ("security", "debian", "org"),
        ("registry", "npmjs", "org"),
    )
]
NOT_OURS = {".git", ".venv", ".nox", "out", "__pycache__", ".hypothesis", ".mypy_cache"}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def our_files() -> Iterator[Path]:
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in NOT_OURS]
        yield from (path for name in names if (path := Path(folder, name)).is_file())


@cache
def imports(source: str, known: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """Every module that the source imports; `from a import b` is a.b where that is a module."""
    return tuple(_imports(source, known))


def _imports(source: str, known: frozenset[str]) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in known else node.module


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def group(module: str) -> str:
    """`pipeline.stages.build` → `stages`; the package itself is vocabulary."""
    return module.split(".")[1] if "." in module else ""


def layer(module: str) -> int:
    return next((i for i, names in enumerate(LAYERS) if group(module) in names), BOTTOM)


def is_upward(importer: str, imported: str) -> bool:
    if layer(importer) != layer(imported) or layer(importer) == BOTTOM:
        return layer(imported) < layer(importer)
    same_group = group(importer) == group(imported)
    return not (same_group and group(importer) in MAY_SHARE_A_LAYER_WITH_ITSELF)


@pytest.mark.parametrize(
    ("importer", "imported", "upward"),
    [
        ("pipeline.cli", "pipeline.release", False),
        ("pipeline.release", "pipeline.steps", False),
        ("pipeline.stages.build", "pipeline.world.engine", False),
        ("pipeline.world.hub", "pipeline.world.command", False),
        ("pipeline.matrix", "pipeline.errors", False),
        ("pipeline.stages.build", "pipeline.stages.smoke", True),
        ("pipeline.gate.paired", "pipeline.world.engine", True),
        ("pipeline.world.engine", "pipeline.stages.build", True),
        ("pipeline.matrix", "pipeline.world.engine", True),
    ],
)
def test_the_rule_itself(importer: str, imported: str, upward: bool) -> None:
    assert is_upward(importer, imported) is upward


def test_the_reader_of_imports_tells_modules_from_names() -> None:
    source = "import docker\nfrom pipeline import errors\nfrom pipeline.record import Record\n"
    found = list(imports(source, frozenset({"pipeline.errors", "pipeline.record"})))
    assert found == ["docker", "pipeline.errors", "pipeline.record"]


def test_imports_go_downward_only() -> None:
    known = frozenset(map(dotted, modules()))
    wrong = [
        f"{dotted(path)} imports {imported}"
        for path in modules()
        for imported in imports(path.read_text("utf-8"), known)
        if imported in known and path.name != "__init__.py" and is_upward(dotted(path), imported)
    ]
    assert wrong == []


def test_packages_are_empty_doors() -> None:
    """An `__init__` that imports would let one module pull in its neighbours unseen."""
    doors = [path for path in modules() if path.name == "__init__.py"]
    assert [dotted(path) for path in doors if list(imports(path.read_text("utf-8")))] == []


@pytest.mark.parametrize(("library", "door"), DOORS.items())
def test_each_outside_thing_has_one_door(library: str, door: str) -> None:
    users = [
        path.relative_to(PACKAGE).as_posix()
        for path in modules()
        if any(name.split(".")[0] == library for name in imports(path.read_text("utf-8")))
    ]
    assert [user for user in users if not user.startswith(door)] == []


def test_the_noxfile_only_runs_sessions() -> None:
    tree = ast.parse((ROOT / "noxfile.py").read_text("utf-8"))
    decisions = (ast.If, ast.IfExp, ast.For, ast.While, ast.Try, ast.With, ast.Match, ast.Lambda)
    deciding = [
        function.name
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        and any(isinstance(node, decisions) for node in ast.walk(function))
    ]
    assert deciding == []
    names = (name.split(".")[0] for name in imports(ast.unparse(tree)))
    assert set(names) <= {"nox", "pathlib", "sys"}


def test_the_tree_names_no_host_of_a_package_registry() -> None:
    """Where packages come from is the user's setting (pip, apt), never ours."""
    named = [
        f"{path.relative_to(ROOT)}: {host}"
        for path in our_files()
        for host in PACKAGE_HOSTS
        if host.encode() in path.read_bytes()
    ]
    assert named == []
