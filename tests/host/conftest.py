"""What several tests of the host's classes need."""

import logging

import pytest


@pytest.fixture
def reports(monkeypatch) -> list:
    """What each patched sampling run of the test reported."""
    from comfyui_omnicache.nodes import messages

    collected: list = []
    monkeypatch.setattr(messages, "announce", collected.append)
    return collected


@pytest.fixture
def told(monkeypatch) -> list[str]:
    """What the pack warned of on the node in this test."""
    from comfyui_omnicache.nodes import messages

    said: list[str] = []

    def log(level: int, text: str, *args) -> None:
        if level >= logging.WARNING:
            said.append(text % args)

    monkeypatch.setattr(messages.log, "log", log)
    return said


@pytest.fixture(scope="module")
def demo():
    """The image demo model; a DemoModel."""
    from demo_model import DemoModel

    return DemoModel("image")
