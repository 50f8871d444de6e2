"""Calibrates both demo models with the pack itself, through the HTTP API, into schedules/."""

import json
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from host_server import HostServer  # noqa: E402

SAMPLES = 2


def main() -> None:
    for model in sys.argv[1:] or ("image", "video"):
        workflow = json.loads((ROOT / "example_workflows" / "api" / f"{model}_calibrate.json").read_text())
        name = f"omnicache_demo_{model}"
        workflow["calibrate"]["inputs"].update(save_as=name, samples=SAMPLES)
        with HostServer() as server:
            print(f"Calibrating the {model} model ...", flush=True)
            server.run(workflow, timeout=1800)
            target = ROOT / "schedules" / f"{name}.json"
            shutil.copyfile(server.base / "models" / "omnicache" / f"{name}.json", target)
            print(f"{target.relative_to(ROOT)}: {target.stat().st_size / 1024:.0f} KB", flush=True)


if __name__ == "__main__":
    main()
