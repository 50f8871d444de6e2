"""Calibrates the demo models with the pack itself, through the HTTP API, into schedules/."""

import json
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "demo")]

from host_server import HostServer  # noqa: E402
from labelled import labelled  # noqa: E402

SAMPLES = 2
MODELS = {
    # what differs from the example workflow of the kind
    "image": ("image", {}),
    "image_fewstep": ("image", dict(steps=16, cfg=1.0)),
    "video": ("video", {}),
    "image_dit": ("image", {}),
}
DIT_OBJECT = "panda"  # that the class-conditional model is calibrated with


def main() -> None:
    for model in sys.argv[1:] or MODELS:
        kind, changes = MODELS[model]
        workflow = json.loads((ROOT / "example_workflows" / "api" / f"{kind}_calibrate.json").read_text())
        name = f"omnicache_demo_{model}"
        if model == "image_dit":
            workflow = labelled(workflow, DIT_OBJECT)
        else:
            workflow["load"]["inputs"]["unet_name"] = f"{name}.safetensors"
        workflow["calibrate"]["inputs"].update(save_as=name, samples=SAMPLES, **changes)
        with HostServer() as server:
            print(f"Calibrating the {model} model ...", flush=True)
            server.run(workflow, timeout=1800)
            target = ROOT / "schedules" / f"{name}.json"
            shutil.copyfile(server.base / "models" / "omnicache" / f"{name}.json", target)
            print(f"{target.relative_to(ROOT)}: {target.stat().st_size / 1024:.0f} KB", flush=True)


if __name__ == "__main__":
    main()
