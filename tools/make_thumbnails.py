"""Makes the thumbnail of each example workflow by running it on the real host; of those whose models are not
here, a card with their names."""

import io
import json

from PIL import Image, ImageDraw, ImageFont

from host_server import HostServer
from large_workflows import LARGE
from locations import ROOT

WIDTH = 480
STEPS, LONGEST = 30, 50  # of the examples as they are
MODELS = {"dit": "DiT", "latte": "Latte", "cogvideox": "CogVideoX", "opensora": "Open-Sora 1.2"}


def main() -> None:
    folder = ROOT / "example_workflows"
    with HostServer() as server:
        for path in sorted((folder / "api").glob("*.json")):
            if path.stem in LARGE:
                continue
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
