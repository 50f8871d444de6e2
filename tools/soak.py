"""Queues a thousand prompts in one server and watches that results stay the same and memory stays flat.

make soak        or: python tools/soak.py 200
"""

import json
import sys

from host_server import HostServer
from locations import ROOT

EVERY = 50
GROWTH_MB = 40.0  # allowed after the first prompts, which fill the allocator's pools


def workflow(seed: int) -> dict:
    graph = json.loads((ROOT / "example_workflows" / "api" / "image_generate.json").read_text())
    graph["empty"]["inputs"]["batch_size"] = 1
    graph["sample"]["inputs"].update(steps=12, seed=seed)
    graph["save"] = {"class_type": "PreviewImage", "inputs": {"images": graph["save"]["inputs"]["images"]}}
    return graph


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    first: dict[int, bytes] = {}
    early = 0.0
    with HostServer() as server:
        for number in range(count):
            seed = number % 2  # by turns: the host would not sample an unchanged prompt again
            outputs = server.run(workflow(seed))["outputs"]["save"]["images"]
            picture = server.view(outputs[0])
            if first.setdefault(seed, picture) != picture:
                sys.exit(f"prompt {number + 1}: the picture of seed {seed} is not the first one")
            if (number + 1) % EVERY == 0:
                memory = server.memory_mb()
                early = early or memory
                print(f"{number + 1} prompts, {memory:.0f} MB", flush=True)
                if memory - early > GROWTH_MB:
                    sys.exit(f"memory grew by {memory - early:.0f} MB since prompt {EVERY}")
    print(f"{count} prompts: each picture as the first, memory flat.")


if __name__ == "__main__":
    main()
