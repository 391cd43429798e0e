"""Imports point strictly down, and the command line starts without the heavy libraries."""

import ast
import graphlib
from pathlib import Path

import pytest

import samgan

PACKAGE = Path(samgan.__file__).parent
LEVELS = (
    {"errors"},
    {"files", "config", "devices", "distributed", "graphs", "memory", "pictures"},
    {"metrics", "augment", "layers", "losses", "presets", "page", "collapse"},
    {"networks", "data", "runs"},
    {"checkpoint", "provenance"},
    {"sampling"},
    {"training"},
    {"planning", "evaluation", "verification", "screening", "cards", "classifier"},
    {"report"},
    {"api"},
    {"sweep", "claims", "utility", "audit"},
    {"table2", "balance"},
    {"cli"},
    {"__main__"},
)
LEVEL = {name: number for number, names in enumerate(LEVELS) for name in names}
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if path != PACKAGE / "__init__.py"
)


def imports(module, everywhere=True):
    """Modules of samgan that `module` imports, wherever in it; `data.readers` for samgan.data.readers."""
    path = PACKAGE.joinpath(*module.split(".")).with_suffix(".py")
    tree = ast.parse(path.read_text())
    found = set()
    for node in ast.walk(tree) if everywhere else tree.body:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative imports are not used here"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            if name.split(".")[0] != "samgan":
                continue
            parts = name.split(".")[1:]
            while parts and not (
                PACKAGE.joinpath(*parts).with_suffix(".py").exists() or PACKAGE.joinpath(*parts).is_dir()
            ):
                parts.pop()  # a name in the module
            if parts:
                found.add(".".join(parts))
    return found


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_strictly_down(module):
    top = module.split(".")[0]
    assert top in LEVEL, f"{module} has no level yet: give it one in LEVELS"
    for other in imports(module):
        other_top = other.split(".")[0]
        if other_top != top:
            assert LEVEL[other_top] < LEVEL[top], f"samgan.{module} imports samgan.{other}"


def test_levels_name_nothing_that_is_gone():
    assert {module.split(".")[0] for module in MODULES} == LEVEL.keys()


@pytest.mark.parametrize("package", ["data", "metrics"])
def test_packages_have_no_circles(package):
    inside = [module for module in MODULES if module.split(".")[0] == package]
    graph = {module: {other for other in imports(module) if other in inside} for module in inside}
    assert set(graphlib.TopologicalSorter(graph).static_order()) == set(inside)


@pytest.mark.parametrize("module", [m for m in MODULES if m.split(".")[0] in ("layers", "losses", "metrics")])
def test_layers_losses_and_metrics_never_see_a_configuration(module):
    assert not {"config", "presets"} & {name.split(".")[0] for name in imports(module)}


def test_the_package_itself_imports_nothing_of_ours_at_first():
    assert imports("__init__", everywhere=False) == set()


HEAVY = """
import json, sys
import {module}
heavy = {{"torch", "torchvision", "lightning_fabric", "scipy", "skimage", "pydicom"}}
print(json.dumps(sorted(heavy & set(sys.modules))))
"""


@pytest.mark.parametrize("module", ["samgan", "samgan.cli"])
def test_starts_without_the_heavy_libraries(run_script, module):
    assert run_script(HEAVY.format(module=module)) == []


def test_fabric_is_imported_by_training_alone(run_script):
    """It costs a second or two, which sampling and evaluation would pay too."""
    assert "lightning_fabric" not in run_script(HEAVY.format(module="samgan.api"))
