"""The command lines of the benches that take the names of models, or nothing."""

import argparse
from collections.abc import Iterable


def parser_of(description: str) -> argparse.ArgumentParser:
    """Shows a bench's docstring as it is written."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def models_asked_for(description: str, models: Iterable[str]) -> list[str]:
    """Those of a bench's models that its command line names, all if none."""
    parser = parser_of(description)
    known = ", ".join(models)
    parser.add_argument("model", nargs="*", help=f"of {known}; all if none is named")
    asked = parser.parse_args().model
    unknown = [model for model in asked if model not in models]
    if unknown:
        parser.error(f"{unknown[0]!r} is none of {known}")
    return asked or list(models)
