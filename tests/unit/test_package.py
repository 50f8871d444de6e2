"""What the Comfy registry asks of the pack, and what goes into it."""

import re
import subprocess
import tomllib

from comfyui_omnicache.omnicache.version import __version__
from locations import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_version_is_the_same_everywhere():
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    assert PROJECT["project"]["version"] == __version__
    assert f"version: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text().replace("[", "").replace("]", "")


def test_the_registry_would_take_its_description():
    """https://docs.comfy.org/registry/specifications; `comfy node validate` checks less."""
    project, comfy = PROJECT["project"], PROJECT["tool"]["comfy"]
    name = project["name"]
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9]*([-_.][A-Za-z0-9]+)*", name) and len(name) < 100
    assert "comfyui" not in name.lower()
    assert (ROOT / project["license"]["file"]).exists() and (ROOT / project["readme"]).exists()
    assert comfy["PublisherId"] and comfy["DisplayName"]
    assert (ROOT / "requirements.txt").read_text().split() == project["dependencies"]


def test_the_package_leaves_the_demo_weights_and_the_tests_out():
    folders = [line for line in (ROOT / ".comfyignore").read_text().split() if line.endswith("/")]
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    packed = [ROOT / name for name in files if not name.startswith(tuple(folders))]
    assert not [path for path in packed if path.suffix == ".safetensors"]
    assert sum(path.stat().st_size for path in packed if path.exists()) < 10e6
