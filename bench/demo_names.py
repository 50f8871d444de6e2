"""What the demo models are called and how they are sampled. Needs no host."""

import argparse
from collections.abc import Iterable

CFG = {"image": 2.5, "video": 2.5, "image_fewstep": 1.0, "image_dit": 2.5}


def kind_of(name: str) -> str:
    """What a demo model makes: "image" or "video"."""
    return name.split("_")[0]


def models_asked_for(description: str, models: Iterable[str]) -> list[str]:
    """Those of a bench's models that its command line names, all if none. description: the bench's
    docstring."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = ", ".join(models)
    parser.add_argument("model", nargs="*", help=f"of {known}; all if none is named")
    asked = parser.parse_args().model
    unknown = [model for model in asked if model not in models]
    if unknown:
        parser.error(f"{unknown[0]!r} is none of {known}")
    return asked or list(models)
