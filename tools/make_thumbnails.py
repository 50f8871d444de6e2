"""Makes the thumbnail of each example workflow by running it on the real host."""

import io
import json

from PIL import Image

from host_server import HostServer
from locations import ROOT

WIDTH = 480
STEPS, LONGEST = 30, 50  # of the examples as they are


def main() -> None:
    folder = ROOT / "example_workflows"
    with HostServer() as server:
        for path in sorted((folder / "api").glob("*.json")):
            workflow = json.loads(path.read_text())
            for node in workflow.values():
                if "steps" in node["inputs"]:
                    node["inputs"]["steps"] = node["inputs"]["steps"] * STEPS // LONGEST
            outputs = server.run(workflow)["outputs"]
            shown = "save_report" if "save_report" in workflow else "save"
            sheet = Image.open(io.BytesIO(server.view(outputs[shown]["images"][0]))).convert("RGB")
            height = round(sheet.height * WIDTH / sheet.width)
            how = Image.Resampling.NEAREST if sheet.width < WIDTH else Image.Resampling.BOX
            sheet.resize((WIDTH, height), how).save(folder / f"{path.stem}.jpg", quality=90)
            print(path.stem, flush=True)


if __name__ == "__main__":
    main()
