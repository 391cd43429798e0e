"""The public names: there when they are used, documented, typed; one version everywhere."""

import importlib
import inspect
import re
import sys
import typing
from pathlib import Path

import pytest

import samgan

ROOT = Path(__file__).parents[1]
FUNCTIONS = [name for name in samgan.__all__ if name[0].islower()]


@pytest.mark.parametrize("name", samgan.__all__)
def test_a_public_name_is_callable_and_documented(name):
    value = getattr(samgan, name)
    assert callable(value)
    assert inspect.getdoc(value)
    assert name in dir(samgan)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_function_says_what_it_takes_and_gives(name):
    function = getattr(samgan, name)
    hints = typing.get_type_hints(function)
    parameters = inspect.signature(function).parameters
    assert hints.keys() == {*parameters, "return"}
    assert hints["return"] is not type(None)
    text = inspect.getdoc(function)
    for heading in ("Raises:", "Returns:"):
        assert heading in text
    assert "Args:" in text or "Arguments" in text


def test_names_of_commands_are_functions_also_after_their_modules_were_imported():
    for module in (
        "samgan.trust.auditing",
        "samgan.studies.balancing",
        "samgan.studies.table2_study",
        "samgan.studies.downstream",
    ):
        importlib.import_module(module)
    for name in ("audit", "balance", "table2", "utility"):
        assert inspect.isfunction(getattr(samgan, name))


def test_what_type_checkers_read_is_what_there_is():
    text = Path(samgan.__file__).read_text()
    checked = re.search(r"if TYPE_CHECKING:\n((?:    .*\n)+)", text)[1]
    namespace = {}
    exec(checked.replace("    from", "from"), namespace)
    names = {name for name in namespace if not name.startswith("__")}
    assert names == {*samgan.__all__} == samgan._PUBLIC.keys()
    assert all(getattr(samgan, name) is namespace[name] for name in names)
    assert Path(samgan.__file__).with_name("py.typed").is_file()


def test_an_unknown_name_is_no_attribute():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = samgan.nonsense


def test_the_version_is_in_one_place():
    assert re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), flags=re.M)[1] == samgan.__version__
    assert 'path = "samgan/__init__.py"' in (ROOT / "pyproject.toml").read_text()
    assert "\n## Unreleased\n" in (ROOT / "CHANGELOG.md").read_text()
    assigned = re.compile(rf'version__? *[=:] *"{re.escape(samgan.__version__)}"')
    sources = [*(ROOT / "samgan").rglob("*.py"), ROOT / "pyproject.toml"]
    assert [path.name for path in sources if assigned.search(path.read_text())] == ["__init__.py"]


def test_importing_the_package_is_light(run_script):
    script = "import json, sys, samgan; dir(samgan); print(json.dumps(sorted(m for m in sys.modules if 'samgan' in m)))"
    assert run_script(script) == ["samgan"]
    assert "samgan" in sys.modules
