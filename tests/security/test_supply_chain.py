"""Workflows run known actions with few permissions, and the lock file pins the default install by hashes."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
pytestmark = pytest.mark.skipif(not WORKFLOWS, reason="the folder .github is missing in an sdist")
# The only jobs with more than read access, and what each of them needs.
WRITING = {
    ("release", "attest"): {"id-token": "write", "attestations": "write"},
    ("release", "publish"): {"id-token": "write"},
    ("release", "announce"): {"contents": "write"},
    ("docs", "deploy"): {"pages": "write", "id-token": "write"},
}


def _jobs() -> list[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    read = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in WORKFLOWS}
    return [(flow, name, job, found) for flow, found in read.items() for name, job in found["jobs"].items()]


def test_workflows_pin_every_action_by_hash() -> None:
    lines = [line.strip() for path in WORKFLOWS for line in path.read_text().splitlines() if "uses:" in line]
    assert len(lines) > 10
    assert [line for line in lines if not re.search(r"uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line)] == []
    # One action has one version everywhere.
    pins = {line.partition("uses: ")[2] for line in lines}
    assert len({pin.partition("@")[0] for pin in pins}) == len(pins)


def test_workflows_have_least_permissions() -> None:
    for flow, name, job, found in _jobs():
        assert found["permissions"] in ({}, {"contents": "read"}), flow
        granted = job.get("permissions", {})
        assert granted in (WRITING.get((flow, name)), {}, {"contents": "read"}), (flow, name)
        assert "pull_request_target" not in (found.get(True) or found.get("on")), flow


def test_workflows_put_no_foreign_text_into_shell_scripts() -> None:
    """Names of branches and titles of pull requests are foreign. An expression puts them into the script itself."""
    for flow, name, job, _ in _jobs():
        for step in job["steps"]:
            assert "${{" not in step.get("run", ""), (flow, name)
            if "actions/checkout" in step.get("uses", ""):
                assert step["with"]["persist-credentials"] is False, (flow, name)


def test_release_builds_from_hashes_and_attests_before_it_publishes() -> None:
    jobs = {name: job for flow, name, job, _ in _jobs() if flow == "release"}
    installs = [step["run"] for job in jobs.values() for step in job["steps"] if "pip install" in step.get("run", "")]
    assert installs
    assert all("--require-hashes" in line for line in installs)
    assert jobs["attest"]["needs"] == "build"
    assert jobs["publish"]["needs"] == "attest"
    assert any("attest-build-provenance" in step.get("uses", "") for step in jobs["attest"]["steps"])
    assert jobs["publish"]["environment"] == "pypi"


def test_workflow_audits_installed_and_locked_dependencies_each_week() -> None:
    found = next(found for flow, _, _, found in _jobs() if flow == "test")
    audits = [step.get("run", "") for step in found["jobs"]["audit"]["steps"]]
    for name in ("installed.txt", "requirements.lock"):
        assert any(line.startswith("pip-audit") and name in line for line in audits), name
    assert found.get(True, found.get("on"))["schedule"]


def _locked(path: Path) -> dict[str, tuple[str, int]]:
    """Return version and number of hashes of each package of a lock file."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    found = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            match = re.match(r"([\w.-]+)==(\S+)", line)
            assert match is not None, line
            found[canonicalize_name(match[1])] = match[2], len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", line))
    return found


@pytest.mark.parametrize("name", ["requirements.lock", ".github/release-requirements.lock"])
def test_lock_file_has_hashes_and_no_addresses(name: str) -> None:
    locked = _locked(ROOT / name)
    assert [package for package, (_, hashes) in locked.items() if not hashes] == []
    assert "://" not in (ROOT / name).read_text(encoding="utf-8")


def test_lock_file_holds_tested_versions_of_all_dependencies() -> None:
    locked = _locked(ROOT / "requirements.lock")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for text in project["dependencies"]:
        needed = Requirement(text)
        version, _ = locked[canonicalize_name(needed.name)]
        assert needed.specifier.contains(version), text
    tested = re.findall(r"(?m)^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"))
    for name, version in tested:
        assert locked.get(canonicalize_name(name), (version, 1))[0] == version, name
