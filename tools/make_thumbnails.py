"""Makes the thumbnail of each example workflow by running it on the real host."""

import io
import json

import numpy as np
from PIL import Image

from host_server import HostServer
from locations import ROOT

WIDTH = 480
STEPS = 30


def main() -> None:
    folder = ROOT / "example_workflows"
    with HostServer() as server:
        for path in sorted((folder / "api").glob("*.json")):
            workflow = json.loads(path.read_text())
            for node in workflow.values():
                if "steps" in node["inputs"]:
                    node["inputs"]["steps"] = STEPS
            outputs = server.run(workflow)["outputs"]
            names = sorted(name for name in outputs if name.startswith("save"))
            saved = [server.view(outputs[name]["images"][0]) for name in names]
            sheet = Image.fromarray(
                np.concatenate([np.asarray(Image.open(io.BytesIO(png)).convert("RGB")) for png in saved])
            )
            height = round(sheet.height * WIDTH / sheet.width)
            sheet.resize((WIDTH, height), Image.NEAREST).save(folder / f"{path.stem}.jpg", quality=90)
            print(path.stem, flush=True)


if __name__ == "__main__":
    main()
