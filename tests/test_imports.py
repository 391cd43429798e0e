"""Imports point strictly down, from wing to wing and within each; the command line starts without heavy libraries."""

import ast
import graphlib
import shutil
from pathlib import Path

import pytest

import samgan
from samgan.data import prepare

PACKAGE = Path(samgan.__file__).parent
# From the ground up. A wing, or a file that stands by itself, imports from the floors below its own only.
FLOORS = (
    {"errors", "cache", "later", "locks", "kernels"},
    {"files", "terminal", "retired", "schema", "seeds", "grids"},
    {"documents", "hosts", "config_training"},
    {"launch"},
    {"devices", "distributed", "pictures", "config"},
    {"presets"},
    {"pages"},
    {"metrics"},
    {"data"},
    {"provenance"},
    {"runs"},
    {"networks"},
    {"sampling"},
    {"scoring"},
    {"trust"},
    {"training"},
    {"api"},
    {"studies", "demonstration"},
    {"studio"},
    {"commands"},
    {"__main__"},
)
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
    if path != PACKAGE / "__init__.py"
)
WINGS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


def path_of(module):
    path = PACKAGE.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def imports(module, everywhere=True):
    """Modules of samgan that `module` imports, wherever in it; `data.readers` for samgan.data.readers."""
    tree = ast.parse(path_of(module).read_text())
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
    assert top in FLOOR, f"{module} has no floor yet: give it one in FLOORS"
    for other in imports(module):
        other_top = other.split(".")[0]
        if other_top != top:
            assert FLOOR[other_top] < FLOOR[top], f"samgan.{module} imports samgan.{other}"


def test_floors_name_nothing_that_is_gone():
    assert {module.split(".")[0] for module in MODULES} == FLOOR.keys()


@pytest.mark.parametrize("wing", WINGS)
def test_wings_have_no_circles(wing):
    """A file of a wing names its neighbours by their own names, never by that of the wing."""
    inside = {module for module in MODULES if module.startswith(f"{wing}.")}
    graph = {module: {other for other in imports(module) if other in inside | {wing}} for module in inside}
    assert set(graphlib.TopologicalSorter(graph).static_order()) == inside


@pytest.mark.parametrize(
    "module", [m for m in MODULES if m.split(".")[0] == "metrics" or m in ("training.losses", "networks.convolutions")]
)
def test_layers_losses_and_metrics_never_see_a_configuration(module):
    assert not {"config", "presets"} & {name.split(".")[0] for name in imports(module)}


def test_the_package_itself_imports_nothing_of_ours_at_first():
    path = PACKAGE / "__init__.py"
    assert not [
        node
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ImportFrom) and "samgan" in node.module
    ]


HEAVY = """
import json, sys
import {module}
heavy = {{"torch", "torchvision", "lightning_fabric", "scipy", "skimage", "pydicom"}}
print(json.dumps(sorted(heavy & set(sys.modules))))
"""


LIGHT = [
    *("samgan", "samgan.commands.main", "samgan.provenance.formats", "samgan.pages", "samgan.runs.folder"),
    *("samgan.scoring.table", "samgan.trust.audit_words", "samgan.studies.balance_words"),
    "samgan.studies.table2_document",
]


@pytest.mark.parametrize("module", LIGHT)
def test_starts_without_the_heavy_libraries(run_script, module):
    assert run_script(HEAVY.format(module=module)) == []


@pytest.fixture(scope="module")
def prepared(twelve_phantoms, tmp_path_factory):
    """A folder with radiographs of two classes, a prepared set of them, and an image without a mark."""
    folder = tmp_path_factory.mktemp("quick")
    shutil.copytree(twelve_phantoms, folder / "xrays")
    prepare(folder / "xrays", folder / "set", resolution=32, workers=1)
    shutil.copy(next(folder.glob("xrays/*/*.png")), folder / "image.png")
    return folder


QUICK = """
import json, sys
from samgan.commands.main import main

try:
    status = main(sys.argv[1:])
except SystemExit as error:  # argparse's --help
    status = error.code
print(json.dumps([status, sorted({"torch", "torchvision", "lightning_fabric"} & set(sys.modules))]))
"""


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("prepare FOLDER/xrays FOLDER/again --resolution 32 --workers 1", 0),
        ("inspect FOLDER/set", 0),
        ("balance FOLDER/set --advise --target 8", 0),
        ("verify FOLDER/image.png", 1),
        *((f"{command} --help", 0) for command in ("train", "sample", "export", "evaluate", "audit", "balance")),
    ],
)
def test_what_needs_no_network_answers_without_torch(run_script, prepared, words, status):
    """Its import takes seconds."""
    assert run_script(QUICK, *words.replace("FOLDER", str(prepared)).split()) == [status, []]


TRAINING = """
import json, sys
from pathlib import Path
import numpy as np
import samgan.api
from samgan.runs import Run
from samgan.config import Config
from samgan.devices import make_fabric
from samgan.training import Options, train_loop

tree = {"network": {"resolution": 32, "max_channels": 8, "spectral_norm": "both", "generator_attention": [8]}}
config = Config().override({**tree, "training": {"batch_size": 4, "kimg": 0.008}})
images = np.random.default_rng(7).integers(0, 256, (8, 1, 32, 32), dtype=np.uint8)
run = Run.create(Path(sys.argv[1]) / "run", config)
train_loop(config, images, run, make_fabric("cpu"), Options(quiet=True))
longer = config.override({"training.kimg": 0.012})
run.rewrite_config(longer)
train_loop(longer, images, run, make_fabric("cpu"), Options(quiet=True, resume=True))
slow = {"lightning_fabric", "torchmetrics", "torchvision", "torch._dynamo", "scipy.stats"}
print(json.dumps([len(run.checkpoints()), sorted(slow & set(sys.modules))]))
"""


def test_a_training_in_one_process_waits_for_no_library_that_it_does_not_use(run_script, tmp_path):
    """Each takes a second or more to import: Lightning Fabric, and what it and torch.compile bring with them."""
    assert run_script(TRAINING, tmp_path) == [2, []]
