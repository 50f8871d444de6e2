"""What the client is told while sampling."""

from types import SimpleNamespace

import pytest

from cached_runs import STEPS, run
from comfyui_omnicache.nodes import messages
from comfyui_omnicache.nodes.model_patch import OmniCacheModelPatch
from comfyui_omnicache.omnicache.correction import Correction
from comfyui_omnicache.omnicache.plan import Budget
from comfyui_omnicache.omnicache.schedule import Schedule
from tiny_models import build


@pytest.fixture
def sent(monkeypatch) -> list[dict]:
    """The messages about steps that a client with the id "ours" got."""
    got: list[dict] = []

    def send(event: str, data: dict, client: str) -> None:
        assert client == "ours"
        if event == "omnicache.step":
            got.append(data)

    server = SimpleNamespace(
        client_id="ours", last_node_id="7", send_sync=send, send_progress_text=lambda *args: None
    )
    monkeypatch.setattr(messages.PromptServer, "instance", server, raising=False)
    return got


def sample(mode: str = "off", shown_on: str | None = "4:1") -> Schedule:
    schedule = Schedule(Budget("reuse ratio", 0.5), cost="even", shown_on=shown_on)
    run(OmniCacheModelPatch.execute(build("sd3"), schedule, Correction(mode)).args[0], "sd3")
    return schedule


@pytest.mark.parametrize(("mode", "name"), [("off", "reused"), ("forecast", "corrected")])
def test_each_step_is_told_once_with_all_that_came_before(sent, mode, name):
    sample(mode)
    assert [len(message["kinds"]) for message in sent] == list(range(1, STEPS + 1))
    assert all(message["node"] == "4:1" and message["steps"] == STEPS for message in sent)
    last = sent[-1]
    assert last["kinds"].count(name) == STEPS // 2 and set(last["kinds"]) == {"full", name}
    assert last["kinds"][:-1] == sent[-2]["kinds"]
    assert len(last["milliseconds"]) == STEPS and min(last["milliseconds"]) > 0


def test_without_a_client_or_a_plot_nothing_is_told(sent):
    sample(shown_on=None)
    messages.PromptServer.instance.client_id = None
    sample()
    assert sent == []
