"""The class-conditional demo model in the place of the image model, in workflows for the API."""

from omnicache_demo.words import OBJECTS

NAME = "omnicache_demo_image_dit"
NO_CLASS = -1


def labelled(workflow: dict, name: str) -> dict:
    """A workflow of the image model, with the loader of the class-conditional one and the class of an object
    in the place of the prompts. name: of the object."""
    inputs = {
        "load": ("OmniCacheDiffusersLoader", {"model_folder": NAME, "weight_dtype": "default"}),
        "positive": ("OmniCacheClassLabel", {"label": list(OBJECTS).index(name)}),
        "negative": ("OmniCacheClassLabel", {"label": NO_CLASS}),
    }
    changed = {node: {"class_type": kind, "inputs": values} for node, (kind, values) in inputs.items()}
    if "decode" in workflow:
        decode = workflow["decode"]
        changed["decode"] = {**decode, "inputs": {**decode["inputs"], "model": "image_dit"}}
    return {**workflow, **changed}
