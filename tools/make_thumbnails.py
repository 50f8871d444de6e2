"""Makes the thumbnail of each example workflow by running it on the real host."""

import io
import json

import numpy as np
from host_server import HostServer
from locations import ROOT
from PIL import Image

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
            saved = [output["images"][0] for name, output in sorted(outputs.items()) if name.startswith("save")]
            sheets = [np.asarray(Image.open(io.BytesIO(server.view(image))).convert("RGB")) for image in saved]
            sheet = Image.fromarray(np.concatenate(sheets))
            height = round(sheet.height * WIDTH / sheet.width)
            sheet.resize((WIDTH, height), Image.NEAREST).save(folder / f"{path.stem}.jpg", quality=90)
            print(path.stem, flush=True)


if __name__ == "__main__":
    main()
