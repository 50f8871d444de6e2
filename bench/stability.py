"""Where plan pattern, forecast and repay are stable: the engine itself on the test equation. Writes the
table of docs/design-notes.md.

The model is linear: its denoised estimate is kappa times the state, which has no trajectory to follow, so
every state that is not 0 is an error. kappa 0: the estimate is the same whatever the state; 1: it follows
the state. Noise levels fall by one factor a step, and after three computed steps so many are reused, one is
computed, and so on. The number is by how much an error grows over 60 steps, over what it does uncached.

    .host/venv/bin/python bench/stability.py
"""

import itertools
import sys
from pathlib import Path
from typing import Any

import torch

from command_line import parser_of
from tables import put_between, table

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tools")]

STEPS = 60
RUNS = (1, 2, 3, 4)
RATIOS = (0.8, 0.6)  # of each noise level to the one before
KAPPAS = (0.0, 0.5)
WAYS = ("repay", "repay, output not read again", "no repay")


def growth(reused: int, ratio: float, kappa: float, way: str) -> float:
    """Size of the last state, over that of an uncached run; of the worst of several last steps."""
    sizes = [abs(_end(reused, ratio, kappa, way, STEPS + extra)) for extra in range(reused + 1)]
    plain = [abs(_end(0, ratio, kappa, way, STEPS + extra)) for extra in range(reused + 1)]
    return max(size / max(other, 1e-300) for size, other in zip(sizes, plain, strict=True))


def _end(reused: int, ratio: float, kappa: float, way: str, steps: int) -> float:
    from comfyui_omnicache.omnicache.correction import Correction, Corrector
    from comfyui_omnicache.omnicache.output_run import OutputRun
    from comfyui_omnicache.omnicache.plan import Plan
    from comfyui_omnicache.omnicache.sampling_run import Asked

    sigmas = [ratio**step for step in range(steps + 1)]
    axis = [float(step) for step in range(steps + 1)]
    pattern = itertools.chain((False,) * 3, itertools.cycle((*(True,) * reused, False)))
    plan = Plan.of(list(itertools.islice(pattern, steps)))
    run = OutputRun(plan, Corrector(Correction(), sigmas, None, 0.0, axis), _repay(sigmas, axis, way))
    x = torch.ones(1, 1, dtype=torch.float64)
    for step in range(steps):
        sigma = torch.tensor([sigmas[step]], dtype=torch.float64)
        denoised = run.predict(Asked(lambda x=x: kappa * x, x, sigma))
        output = (x - denoised) / sigma
        change = run.due(step, x)
        run.step_finished(step)
        x = (x if change is None else x + change) + output * (sigmas[step + 1] - sigmas[step])
    return float(x)


def _repay(sigmas: list[float], axis: list[float], way: str) -> Any:
    from comfyui_omnicache.omnicache.repay import Repay
    from comfyui_omnicache.omnicache.response import Response

    euler = Response.of_euler(sigmas)
    if way == "no repay":
        return None
    scales = euler.scales * (way == "repay")  # 0 of what is evaluated: nothing is read again
    return Repay(axis, sigmas, Response(euler.held, euler.outputs, euler.states, scales))


def main() -> None:
    parser_of(__doc__).parse_args()
    from in_process import load_host, load_pack

    load_host()
    load_pack()
    rows = []
    for reused, ratio in itertools.product(RUNS, RATIOS):
        cells = [_shown(growth(reused, ratio, kappa, way)) for way in WAYS for kappa in KAPPAS]
        rows.append([str(reused), f"{ratio:g}", *cells])
    heads = [f"{way}, kappa {kappa:g}" for way in WAYS for kappa in KAPPAS]
    lines = table(("reused in a row", "sigma's factor", *heads), rows)
    put_between(ROOT / "docs" / "design-notes.md", "bench/stability.py", lines)
    print("\n".join(lines))


def _shown(value: float) -> str:
    return f"{value:.2g}" if value < 1000 else f"{value:.0e}"


if __name__ == "__main__":
    main()
