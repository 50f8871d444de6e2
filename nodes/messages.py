"""What the pack says: in the log, on nodes, and to the client whose prompt is executing."""

import logging
import math
from collections.abc import Callable

import comfy.utils
import latent_preview
import torch
from server import PromptServer

from ..omnicache.pilots import Pilot
from ..omnicache.plan import EVERYTHING, Plan
from ..omnicache.report import RunReport

log = logging.getLogger("omnicache")


def tell(text: str, level: int = logging.WARNING, node_id: str | None = None) -> None:
    """Says something in the log and on a node, the one that is executing if no other is named."""
    log.log(level, "OmniCache: %s", text)
    server = getattr(PromptServer, "instance", None)
    if server is not None and server.client_id is not None:
        server.send_progress_text(text, node_id or server.last_node_id, server.client_id)


def gain_in_words(plan: Plan | Pilot, reuse_cost: float | None) -> str:
    """What to expect of a run. reuse_cost: time of a reuse evaluation over that of a full one, if it is
    known."""
    if plan.full is None:
        return f"decides at each of {plan.steps} steps whether to compute it"
    words = f"computes {plan.full} of {plan.steps} steps"
    if reuse_cost is None or plan.selections != {EVERYTHING}:
        return words
    return f"{words}, about {tenths(plan.speedup(reuse_cost))}x faster"


def tenths(factor: float) -> str:
    """Rounded down: it is a promise."""
    return f"{math.floor(factor * 10 + 1e-9) / 10:.1f}"


def tell_size(bytes_of_row: int) -> None:
    """Says on the node how much the caches of a run will take, before there are any."""
    tell(
        f"the cache takes about {bytes_of_row / 1e6:.1f} MB for each picture and each of its prompts",
        logging.DEBUG,  # the log has it in the line of the run
    )


def announce(report: RunReport) -> None:
    """One line in the log, unless the run has said already why it was full, and one message to the client
    whose prompt it was."""
    if report.why_full is None:
        log.info("OmniCache: %s", report.summary())
    server = getattr(PromptServer, "instance", None)
    if server is not None and server.client_id is not None:
        facts = {"node": server.last_node_id, **report.as_dict()}
        server.send_sync("omnicache.run", facts, server.client_id)


def announce_step(node: str, report: RunReport) -> None:
    """Tells the client, if there is one, what the steps of the run were so far: all of them, so that a plot
    that missed some of the messages has the whole picture after the next."""
    server = getattr(PromptServer, "instance", None)
    if server is not None and server.client_id is not None:
        server.send_sync("omnicache.step", {"node": node, **report.progress()}, server.client_id)


def step_callback(model, steps: int, runs: int) -> Callable[[int], Callable]:
    """The progress bar and preview of several sampling runs in a row: gives each run's callback by its
    number. Raises the host's InterruptProcessingException when the user interrupts."""
    bar = comfy.utils.ProgressBar(steps * runs)
    previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)

    def for_run(number: int) -> Callable:
        def callback(step: int, denoised: torch.Tensor, x: torch.Tensor, total_steps: int) -> None:
            preview = previewer.decode_latent_to_preview_image("JPEG", denoised) if previewer else None
            bar.update_absolute(number * steps + step + 1, steps * runs, preview)

        return callback

    return for_run
