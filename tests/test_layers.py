"""Who may import whom: downward only, checked on the syntax tree: no import hides in a function."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = (
    ("errors", "recipe"),
    ("types", "metrics", "distributed", "kernels"),
    ("datasets", "scenes"),
    ("losses", "models", "data", "checkpoints"),
    ("prepare", "terminal"),
    ("engine",),
    ("measure",),
    ("report", "export"),
    ("commands",),
    ("api", "cli", "__main__"),
)
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}
READERS_OF_RECIPES = (
    "hwdkit.api",
    "hwdkit.cli",
    "hwdkit.commands",
    "hwdkit.engine.build",
    "hwdkit.engine.describe",
    "hwdkit.recipe",
)
VALUES_IN_RECIPES = ("hwdkit.recipe.protocol",)
"""What recipes and results have in common; it knows of no recipe."""
HOMES = {
    "timm": ("hwdkit.models",),
    "thop": ("hwdkit.measure.profile",),
    "matplotlib": ("hwdkit.report.plots",),
    "jinja2": ("hwdkit.report.card", "hwdkit.report.html"),
    "huggingface_hub": ("hwdkit.commands.checkpoint.card", "hwdkit.commands.doctor"),
    "av": ("hwdkit.commands.predict.video",),
    "sklearn": ("hwdkit.measure.embeddings",),
    "onnx": ("hwdkit.export",),
    "onnxruntime": ("hwdkit.export",),
    "triton": ("hwdkit.kernels",),
}
NAMED_AT_RUN_TIME = ("hwdkit", "hwdkit.cli.catalogue", "hwdkit.commands.doctor.packages")
"""These import public names, a command that was called, packages that shall load: when they are used."""
TORCH_FREE = {"pydantic", "pydantic_core", "yaml"}


class Import(NamedTuple):
    """`module` imports `target` at `line`; `at_top` when it is loaded, not in a function or for types."""

    module: str
    target: str
    line: int
    at_top: bool

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


def name_of(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_in(source: str, module: str, known: set[str]) -> Iterator[Import]:
    """Find every import; `from package import name` is one of the submodule if there is one of that name."""
    tree = ast.parse(source)
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        or (isinstance(function, ast.If) and ast.unparse(function.test) == "TYPE_CHECKING")
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        targets: list[str] = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: imports are absolute"
            package = node.module or ""
            names = (f"{package}.{alias.name}" for alias in node.names)
            targets = [name if name in known else package for name in names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            argument = node.args[0]
            if module in NAMED_AT_RUN_TIME:
                continue
            assert isinstance(argument, ast.Constant), f"{module}:{node.lineno}: imports a computed name"
            targets = [str(argument.value)]
        else:
            continue
        for target in dict.fromkeys(targets):
            yield Import(module, target, node.lineno, id(node) not in inside)


def part_of(module: str) -> str:
    """The layer's entry: hwdkit.report.plots -> report."""
    return module.split(".")[1] if "." in module else module


def within(module: str, homes: tuple[str, ...]) -> bool:
    return any(module == home or module.startswith(f"{home}.") for home in homes)


FILES = {name_of(path, ROOT): path for path in sorted((ROOT / "hwdkit").rglob("*.py"))}
IMPORTS = [
    found
    for module, path in FILES.items()
    for found in imports_in(path.read_text(encoding="utf-8"), module, set(FILES))
]
OURS = [found for found in IMPORTS if within(found.target, ("hwdkit",)) and found.target != "hwdkit"]
FOREIGN = [found for found in IMPORTS if not within(found.target, ("hwdkit",))]


def listed(violations: list[Import]) -> str:
    return "\n".join(map(str, violations))


def test_every_module_belongs_to_a_layer() -> None:
    assert {part_of(module) for module in FILES} - {"hwdkit"} == set(LEVEL)


def test_package_itself_imports_nothing() -> None:
    lazily = ("hwdkit.api", "hwdkit.losses")  # when a public name is first used
    at_once = [
        found
        for found in FOREIGN + OURS
        if found.module == "hwdkit" and (found.at_top or not within(found.target, lazily))
    ]
    strangers = [found for found in at_once if found.target.split(".")[0] not in sys.stdlib_module_names]
    assert listed(strangers) == ""


def test_imports_point_downward() -> None:
    inside = [found for found in OURS if found.module != "hwdkit"]  # its public names come from the top
    upward = [found for found in inside if LEVEL[part_of(found.target)] > LEVEL[part_of(found.module)]]
    assert listed(upward) == ""


def test_losses_models_data_and_checkpoints_never_import_each_other() -> None:
    rooms = {"losses", "models", "data", "checkpoints"}
    siblings = [
        found
        for found in OURS
        if {part_of(found.module), part_of(found.target)} <= rooms
        and part_of(found.module) != part_of(found.target)
    ]
    assert listed(siblings) == ""


def test_no_module_imports_itself_in_a_circle() -> None:
    graph: dict[str, set[str]] = {module: set() for module in FILES}
    for found in OURS:
        # A command's options import what does its work when the command is called.
        if found.at_top or not within(found.target, (found.module,)):
            graph[found.module].add(found.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_recipes_are_read_by_cli_commands_and_build_only() -> None:
    readers = [
        found
        for found in OURS
        if part_of(found.target) == "recipe"
        and not within(found.target, VALUES_IN_RECIPES)
        and not within(found.module, READERS_OF_RECIPES)
    ]
    assert listed(readers) == ""


@pytest.mark.parametrize("package", HOMES)
def test_heavy_dependency_stays_at_home(package: str) -> None:
    users = [found for found in FOREIGN if found.target.split(".")[0] == package]
    assert users, f"nothing imports {package} any more: this test has lost its object"
    assert listed([found for found in users if not within(found.module, HOMES[package])]) == ""


@pytest.mark.parametrize(("level", "allowed"), [(0, TORCH_FREE), (1, {"torch", "triton"})], ids=["L0", "L1"])
def test_lowest_layers_need_little_beside_the_standard_library(level: int, allowed: set[str]) -> None:
    packages = allowed | set(sys.stdlib_module_names)
    strangers = [
        found
        for found in FOREIGN
        if LEVEL.get(part_of(found.module)) == level and found.target.split(".")[0] not in packages
    ]
    assert listed(strangers) == ""


COMMAND_LINE = sorted(
    name
    for name, path in FILES.items()
    if name.startswith("hwdkit.cli") or (name.startswith("hwdkit.commands") and path.name == "__init__.py")
)
"""All of it: a package of commands holds their options; what does the work is imported when one is called."""


@pytest.mark.parametrize(
    "start", [*COMMAND_LINE, "hwdkit.datasets.table", "hwdkit.recipe.load", "hwdkit.recipe.find"]
)
def test_command_line_and_recipes_load_without_torch(start: str) -> None:
    """Follows module-level imports, and those of the packages above each module."""
    waiting, seen = [start], set()
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        waiting += [f.target for f in IMPORTS if f.module == module and f.at_top]
        waiting += [module.rpartition(".")[0]] if module.startswith("hwdkit.") else []
    heavy = {module.split(".")[0] for module in seen} & {
        "torch",
        "torchvision",
        "timm",
        "numpy",
        "matplotlib",
    }
    assert heavy == set()


def test_imports_inside_functions_and_under_type_checking_are_seen() -> None:
    source = """
if TYPE_CHECKING:
    from hwdkit.engine import build
def f():
    from hwdkit.terminal import console
    from hwdkit.commands import VERSION
    async def g():
        import timm.models as m
h = lambda: importlib.import_module("thop")
"""
    found = [*imports_in(source, "hwdkit.types", {"hwdkit.engine.build", "hwdkit.terminal.console"})]
    assert [(item.target, item.at_top) for item in sorted(found, key=lambda item: item.line)] == [
        ("hwdkit.engine.build", False),
        ("hwdkit.terminal.console", False),
        ("hwdkit.commands", False),
        ("timm.models", False),
        ("thop", False),
    ]
