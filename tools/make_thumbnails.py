"""Makes the thumbnail of each example workflow by running it on the real host; of those whose models are not
here, a card with their names."""

import io
import json

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from host_server import HostServer
from large_workflows import LARGE
from locations import ROOT

WIDTH = 480
STEPS = 30
MODELS = {"dit": "DiT", "latte": "Latte", "cogvideox": "CogVideoX"}


def main() -> None:
    folder = ROOT / "example_workflows"
    with HostServer() as server:
        for path in sorted((folder / "api").glob("*.json")):
            if path.stem in LARGE:
                continue
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
    for name in LARGE:
        card(name).save(folder / f"{name}.jpg", quality=90)


def card(name: str) -> Image.Image:
    model, _, task = name.partition("_")
    picture = Image.new("RGB", (WIDTH, WIDTH * 9 // 16), "#20242b")
    draw = ImageDraw.Draw(picture)
    middle = (picture.width // 2, picture.height // 2)
    draw.text(middle, MODELS[model], "white", ImageFont.load_default(56), anchor="md")
    draw.text(middle, "\n" + task.replace("_", " "), "#9aa4b2", ImageFont.load_default(24), anchor="ma")
    return picture


if __name__ == "__main__":
    main()
