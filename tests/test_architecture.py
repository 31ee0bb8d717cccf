"""Imports point one way: a unit imports only what stands to its right in this list, and siblings never meet."""

import ast
from pathlib import Path

import pytest

from vidistill.methods import METHODS
from vidistill.runtimes import RUNTIMES
from vidistill.students.delta.kinds import KINDS
from vidistill.tasks import METRICS, TASKS

SOURCE = Path(__file__).parent.parent / "src" / "vidistill"
LAYERS = [
    {"__main__"},
    {"cli"},
    {"runs"},
    {"stream"},
    {"methods"},
    {"runtimes"},
    {"students"},
    {"tasks"},
    {"models"},
    {"data"},
    {"report"},
    {"ops"},
    {"training_log", "config"},
    {"progress"},
    {"files"},
    {"interrupts"},
    {"errors"},
]
LEVEL = {unit: level for level, units in enumerate(LAYERS) for unit in units}
# what the methods share; the others are methods, which never import each other
SHARED_BY_METHODS = {
    "supervised", "stage_method", "features", "teacher", "processes", "delta_reference", "latency_table",
}  # fmt: skip


def imports(path: Path) -> list[str]:
    """The vidistill modules that a file imports, dotted, without the package's own name."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vidistill"):
            module = (node.module or "").removeprefix("vidistill").removeprefix(".")
            names += [module] if module else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [
                alias.name.removeprefix("vidistill.") for alias in node.names if alias.name.startswith("vidistill.")
            ]
    return [name for name in names if name and not name.startswith("__")]


def modules() -> list[Path]:
    return sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


def unit_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def test_every_unit_has_a_place() -> None:
    assert {unit_of(path) for path in modules()} == set(LEVEL)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_right(path: Path) -> None:
    unit = unit_of(path)
    for name in imports(path):
        other = name.split(".")[0]
        assert other == unit or LEVEL[other] > LEVEL[unit], f"{unit} imports {other}"


@pytest.mark.parametrize("task", TASKS)
def test_a_task_is_a_folder_that_only_the_registry_imports(task: str) -> None:
    for path in modules():
        inside = path.relative_to(SOURCE).parts[:2] == ("tasks", task)
        if not inside and path != SOURCE / "tasks" / "__init__.py":
            assert not [name for name in imports(path) if name.startswith(f"tasks.{task}")], path


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_runtime_is_a_file_that_the_registry_imports(runtime: str) -> None:
    assert (SOURCE / "runtimes" / f"{runtime}.py").is_file()


def test_methods_never_import_each_other() -> None:
    for path in (SOURCE / "methods").glob("*.py"):
        others = {name.split(".")[1] for name in imports(path) if name.startswith("methods.")}
        if path.stem != "__init__":
            assert others <= SHARED_BY_METHODS, path


def texts(path: Path) -> set[str]:
    """The string literals of a file, without its docstrings."""
    tree = ast.parse(path.read_text())
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in docs]
    return {node.value for node in constants if isinstance(node.value, str)}


def test_no_module_outside_its_folder_names_a_task_or_a_metric() -> None:
    common = {"agreement"}  # of every task; a word of the report's own
    metrics = {metric.key for metric in METRICS} - common
    theirs = SOURCE / "models" / "libraries.py"  # where they are torchvision's names of its modules
    for path in modules():
        if unit_of(path) not in ("tasks", "ops") and path != theirs:  # ops: the pure functions behind the metrics
            named = texts(path) & (set(TASKS) | metrics)
            assert not named, f"{path} names {named}"


def test_no_module_outside_the_registry_names_a_method_kind_or_runtime_to_branch_on() -> None:
    for path in modules():
        source = path.read_text()
        for name in {*METHODS, *KINDS, *RUNTIMES}:
            is_own = path.stem == name  # whose losses may have its name
            assert is_own or f'== "{name}"' not in source, f'{path} compares with "{name}"'
