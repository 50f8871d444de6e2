"""Starts a real ComfyUI, calibrates a small profile on it, and runs the browser tests against it.

python tests/browser/run.py [--frontend VERSION] [--only PATTERN] [FILE ...]

--frontend: a version of comfyui-frontend-package, downloaded once into .host, or a folder that holds one.
FILE: run these in place of all tests: some of the test files, or another script (screenshots.js).
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from host_server import HostServer  # noqa: E402
from locations import HOST_FOLDER, host_python  # noqa: E402

CALIBRATION = ROOT / "example_workflows" / "api" / "image_calibrate.json"
PROFILE = "browser test"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main() -> int:
    parser = argparse.ArgumentParser(description="Tests the plot in a real browser.")
    parser.add_argument("--frontend", metavar="VERSION", help="another front-end than the installed one")
    parser.add_argument("--only", metavar="PATTERN", help="run the tests whose names match")
    parser.add_argument("files", nargs="*", type=Path, help="files to run in place of all tests")
    options = parser.parse_args()
    # One file after the other, for they set the same server's settings.
    test = ["--test", "--test-concurrency=1", "--test-reporter=spec"]
    if options.only:
        test.append(f"--test-name-pattern={options.only}")
    files = [str(file.resolve()) for file in options.files] or tests()
    are_tests = all(file.endswith(".test.js") for file in files)
    work = [*test, *files] if are_tests else files
    with HostServer(frontend=options.frontend and frontend(options.frontend)) as server:
        server.run(small_calibration())
        where = {
            "OMNICACHE_SERVER": server.address,
            "OMNICACHE_PROFILE": f"{PROFILE}.json",
            "OMNICACHE_BROWSER": browser(),
        }
        return subprocess.run(["node", *work], cwd=ROOT, env={**os.environ, **where}).returncode


def frontend(wanted: str) -> Path:
    """The folder of a front-end: that one, or where the version is, or is downloaded to."""
    if Path(wanted).is_dir():
        return Path(wanted)
    folder = HOST_FOLDER / f"frontend-{wanted}"
    static = folder / "comfyui_frontend_package" / "static"
    if not static.is_dir():
        with tempfile.TemporaryDirectory(dir=HOST_FOLDER, prefix="frontend-") as name:
            pip = [host_python(), "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
            command = [*pip, "-d", name, f"comfyui-frontend-package=={wanted}"]
            if subprocess.run(command).returncode:
                sys.exit(f"Front-end {wanted} cannot be downloaded. Check the network and the version.")
            unpacked = Path(name) / "unpacked"
            with zipfile.ZipFile(next(Path(name).glob("*.whl"))) as wheel:
                wheel.extractall(unpacked)
            unpacked.rename(folder)
    return static


def browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    return found or sys.exit(f"None of {', '.join(BROWSERS)} is installed. On Debian: apt install chromium.")


def tests() -> list[str]:
    return sorted(str(file) for file in HERE.glob("*.test.js"))


def small_calibration() -> dict:
    """The example's calibration with one picture and few steps, so that each step has a cell of its own."""
    prompt = json.loads(CALIBRATION.read_text(encoding="utf-8"))
    for node in prompt.values():
        if node["class_type"] == "OmniCacheDemoLatent":
            node["inputs"]["batch_size"] = 1
        if node["class_type"] == "TrajectoryCalibrator":
            node["inputs"].update(steps=20, save_as=PROFILE)
    return prompt


if __name__ == "__main__":
    sys.exit(main())
