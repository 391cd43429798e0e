"""What a release is made of: metadata, workflows, container, and the documents that promise something."""

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import samgan
from samgan.data.labels import tables
from samgan.data.readers.radiograph import MAXIMUM_BYTES, MAXIMUM_PIXELS
from samgan.data.sources import MAXIMUM_ARRAY_BYTES
from samgan.retired import RETIRED

ROOT = Path(samgan.__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
PYTHONS = [text.split(" :: ")[-1] for text in PROJECT["classifiers"] if "Python :: 3." in text]


def text_of(name):
    return (ROOT / name).read_text("utf-8")


def bounds(name):
    """The requirement of a package as pyproject.toml has it, without spaces."""
    return next(text for text in PROJECT["dependencies"] if re.match(rf"{name} ", text)).replace(" ", "")


def test_metadata_names_what_is_there():
    citation = yaml.safe_load(text_of("CITATION.cff"))
    assert citation["version"] == samgan.__version__
    assert citation["license"] == PROJECT["license"] == "Apache-2.0"
    assert PROJECT["authors"] == [{"name": author["name"]} for author in citation["authors"]]
    assert set(PROJECT["urls"].values()) <= {citation["preferred-citation"]["url"]}  # no address is invented
    assert (ROOT / PROJECT["readme"]).is_file()
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_are_yaml_with_few_rights_and_actions_of_one_major_version(path):
    document = yaml.safe_load(path.read_text("utf-8"))
    assert document["permissions"] == {"contents": "read"}
    for job in document["jobs"].values():
        assert job["timeout-minutes"]
        pages = {"pages"} if path.name == "docs.yml" else set()  # GitHub Pages asks for it
        assert set(job.get("permissions", {})) <= {"id-token"} | pages
        for step in job["steps"]:
            assert "run" in step or re.fullmatch(r"[\w-]+/[\w-]+@(v[0-9]+|release/v[0-9]+)", step["uses"])


def test_the_oldest_versions_are_tested():
    text = text_of(".github/workflows/tests.yml")
    matrix = yaml.safe_load(text)["jobs"]["tests"]["strategy"]["matrix"]
    assert matrix["python"] == [PYTHONS[0], PYTHONS[-1]]
    for name in ("torch", "torchvision"):
        oldest = bounds(name).removeprefix(f"{name}>=")
        assert f"{name}=={oldest}.*" in text


@pytest.mark.parametrize(
    ("tag", "changelog", "citation", "status", "words"),
    [
        ("v{}", "## {} - 2026-12-01", "version: {}", 0, ""),
        ("v{}.1", "## {}", "version: {}", 1, "the tag is"),
        ("{}", "## {}", "version: {}", 1, "the tag is"),
        ("v{}", "## Unreleased", "version: {}", 1, "CHANGELOG.md has no section"),
        ("v{}", "## {}", "version: 0.0.9", 1, "CITATION.cff names another version"),
    ],
)
def test_a_release_begins_only_with_the_version_of_its_tag(tmp_path, tag, changelog, citation, status, words):
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    steps = yaml.safe_load(text_of(".github/workflows/release.yml"))["jobs"]["build"]["steps"]
    script = next(step["run"] for step in steps if "tag" in step.get("name", ""))
    (tmp_path / "samgan").mkdir()
    shutil.copy(samgan.__file__, tmp_path / "samgan")
    (tmp_path / "CHANGELOG.md").write_text(changelog.format(samgan.__version__) + "\n")
    (tmp_path / "CITATION.cff").write_text(citation.format(samgan.__version__) + "\n")
    environment = {**os.environ, "GITHUB_REF_NAME": tag.format(samgan.__version__)}
    done = subprocess.run([bash, "-ec", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, words in done.stdout) == (status, True)


@pytest.mark.parametrize("name", ["bug", "question"])
def test_issue_forms_warn_of_pictures_of_patients(name):
    form = yaml.safe_load(text_of(f".github/ISSUE_TEMPLATE/{name}.yml"))
    assert form["name"]
    assert form["description"]
    identifiers = [item["id"] for item in form["body"] if item["type"] != "markdown"]
    assert len(set(identifiers)) == len(identifiers) > 1
    assert "patient" in json.dumps(form["body"]).replace("No images or names of patients", "patient")


def locked_versions(name):
    """The version of each package in a file that `make lock` wrote, and how many hashes it has."""
    lines = [line for line in text_of(name).splitlines() if not line.strip().startswith("#")]
    packages = re.split(r"\n(?=\w)", "\n".join(lines))
    return {
        re.split("==|[ \n]", one)[0]: (re.match(r"[\w.-]+==([\w.]+)", one)[1], one.count("--hash=sha256:"))
        for one in packages
    }


def test_the_container_installs_locked_versions_that_the_package_allows():
    extras = PROJECT["optional-dependencies"]
    hashed, torch = locked_versions("requirements-container.txt"), locked_versions("requirements-torch.txt")
    assert all(hashes for _, hashes in hashed.values())
    assert set(torch) == {"torch", "torchvision"}
    for needed in map(Requirement, [*PROJECT["dependencies"], *extras["dicom"], *extras["tables"]]):
        version, _ = (hashed | torch)[needed.name.lower().replace("_", "-")]
        assert needed.specifier.contains(version), needed
    # Nothing of CUDA is in the file with hashes: it comes with torch, from the index that the builder names.
    assert not [name for name in hashed if re.match("nvidia|cuda|triton|torch(vision)?$", name)]
    installed = [line for line in text_of("Containerfile").splitlines() if "pip install" in line and "/tmp/" in line]
    assert "--require-hashes --no-deps --requirement /tmp/requirements-container.txt" in installed[0]
    assert "--requirement /tmp/requirements-torch.txt" in installed[1]
    assert len(installed) == 2


def test_the_container_has_no_rights_and_takes_only_what_it_is_made_of():
    lines = text_of("Containerfile").splitlines()
    last = max(number for number, line in enumerate(lines) if line.startswith("FROM"))
    users = [line.split()[1] for line in lines[last:] if line.startswith("USER")]
    assert users
    assert users[-1].split(":")[0] not in ("root", "0")
    assert 'ENTRYPOINT ["samgan"]' in lines
    ignored = text_of(".containerignore")
    assert ignored == text_of(".dockerignore")
    allowed = {line[1:] for line in ignored.splitlines() if line.startswith("!")}
    copied = [
        word for line in lines if line.startswith("COPY ") and "--from" not in line for word in line.split()[1:-1]
    ]
    assert set(copied) == allowed
    assert all((ROOT / name).exists() for name in allowed)


def as_json(*values):
    return ", ".join(f"`{json.dumps(value)}`" for value in values)


def test_all_that_is_deprecated_is_listed():
    rows = [line for line in text_of("docs/deprecations.md").splitlines() if line.startswith("| `")]
    expected = []
    for key, gone in sorted(RETIRED.items()):
        name = f"`{key}`: {as_json(*gone.values)}" if gone.values else f"`{key}`"
        accepted, until = ("nothing", "-") if gone.same is None else (as_json(gone.same), gone.until)
        expected.append(f"| {name} | {gone.since} | {accepted} | {until} | {gone.advice} |")
    assert rows == expected


def test_nothing_stays_deprecated_beyond_its_end():
    def number(version):
        return [int(part) for part in version.split(".")]

    for gone in RETIRED.values():
        assert number(gone.since) <= number(samgan.__version__) < number(gone.until)


def test_the_limits_that_are_promised_hold():
    text = " ".join(text_of("SECURITY.md").split())
    assert f"{MAXIMUM_PIXELS // 10**6} million pixels and {MAXIMUM_BYTES // 2**20} MiB" in text
    assert f"a table, {tables.MAXIMUM_BYTES // 2**30} GiB" in text
    assert f".npz file, {MAXIMUM_ARRAY_BYTES // 2**30} GiB" in text
    assert not re.search(r"[\w.]+@[\w.]+", text)  # reports go through the private form, not to an address


def test_what_is_unpickled_is_what_security_says():
    """Each way to load objects is restricted, but for the one that SECURITY.md names, and a file just made."""
    free = []
    for path in sorted((ROOT / "samgan").rglob("*.py")):
        for call in re.findall(
            r"\b(?:torch\.load|np\.load|pickle\.loads?|jit\.load|export\.load)\(.*", path.read_text("utf-8")
        ):
            if "weights_only=True" not in call and "allow_pickle=False" not in call:
                free.append((path.name, call.split("(")[0]))
    written_here = {("graphs.py", "export.load")}  # compared with the model before it is kept
    assert set(free) == {("load_features.py", "jit.load"), ("load_features.py", "export.load")} | written_here
