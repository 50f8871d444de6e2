"""The rivals' plans that follow from the number of steps, the sigmas and the blocks of the model."""

from dataclasses import dataclass

import numpy as np

from .noise_axis import likely_prediction
from .outlook import Outlook
from .pilots import FLUX_POLYNOMIAL, TYPICAL_MOTION, Polynomial
from .plan import EVERY_BLOCK, EVERYTHING, NO_BLOCK, NOTHING, Layout, Parts, Plan
from .profile import Floats, Profile


@dataclass(frozen=True)
class Sampling:
    """What a rule is applied to. sigmas: (steps + 1,). layout: the branches of each block of the model.
    profile: what was measured, for the rules that are measured. polynomial, typical_motion: what TeaCache and
    AdaCache's motion regularisation were fitted to."""

    sigmas: Floats
    layout: Layout = ()
    profile: Profile | None = None
    polynomial: Polynomial = FLUX_POLYNOMIAL
    typical_motion: float = TYPICAL_MOTION

    @property
    def steps(self) -> int:
        return len(self.sigmas) - 1

    @property
    def blocks(self) -> int:
        return len(self.layout)

    def outlook(self) -> Outlook:
        if self.profile is None:
            raise ValueError(
                "profile: none is connected or picked, and this method is measured by one. Connect a "
                "Trajectory Calibrator, or pick a saved profile."
            )
        return Outlook(self.profile, self.sigmas)


def even(sampling: Sampling, share: float) -> Plan:
    """As many full steps as the share says, evenly spread, the first and the last among them: what every
    cadence becomes when it must meet a budget exactly."""
    full = max(round(share * sampling.steps), 2)
    return reuse_between({round(i * (sampling.steps - 1) / (full - 1)) for i in range(full)}, sampling)


def fora(sampling: Sampling, interval: float) -> Plan:
    """FORA (arXiv 2407.01425; github.com/prathebaselva/FORA): every attention and MLP output, before its
    gate, at a fixed cadence. The code counts steps down, so the last one is always full and the first gap
    may be shorter. Published: interval 3."""
    last = sampling.steps - 1
    return reuse_between({0, *(s for s in range(last + 1) if (last - s) % round(interval) == 0)}, sampling)


def delta_dit(sampling: Sampling, interval: float) -> Plan:
    """Delta-DiT (arXiv 2406.01125; no code was published): at a fixed cadence a span of blocks is reused,
    at the rear in the first 60 % of the steps (b = 12 of 20), at the front after them.

    The span is 21 of 28 blocks and the front one starts behind block 0. In a model with few blocks both
    would be the same; the span then is 60 % of the blocks and, if need be, starts at block 0. Ours adds each
    branch behind its present gate, where the paper adds the span's whole difference. Published: interval 2.
    """
    blocks, switch = sampling.blocks, round(0.6 * sampling.steps)
    span = round(0.75 * blocks)
    if 1 + span > blocks - 1:
        span = max(round(0.6 * blocks), 1)
    start = 1 if 1 + span <= blocks - 1 else 0
    rear, front = _blocks(blocks - span, blocks), _blocks(start, start + span)
    return Plan(
        tuple(
            NOTHING if step % round(interval) == 0 else rear if step < switch else front
            for step in range(sampling.steps)
        )
    )


def deepcache(sampling: Sampling, interval: float) -> Plan:
    """DeepCache's idea (arXiv 2312.00858; github.com/horseee/DeepCache) carried over to a transformer, which
    has no skips of a U-Net: all but the first and the last block are reused at a fixed cadence. A transfer,
    not the source's method. Published: interval 3."""
    middle = _blocks(1, sampling.blocks - 1)
    return Plan(tuple(NOTHING if step % round(interval) == 0 else middle for step in range(sampling.steps)))


def t_gate(sampling: Sampling, gate: float) -> Plan:
    """T-GATE (arXiv 2404.02747; github.com/HaozheLiu-ST/T-GATE) as far as a plan goes: cross-attention is
    computed until the gate step and reused from then on; before it, self-attention is reused but at each
    third step. MLPs are never reused. Published for transformers: gate 15 of 25 steps, interval 3, warm-up 2.

    Missing: behind the gate the source also drops guidance, which is most of its saving and changes the
    picture by design, and reuses the mean over both prompts where a plan reuses each prompt's own.
    """
    interval, warm_up = 3, 2
    last_computed = max(round(gate * sampling.steps), 1) - 1
    attention, cross = Parts(attention=EVERY_BLOCK), Parts(cross_attention=EVERY_BLOCK)
    parts = []
    for step in range(sampling.steps):
        if step > last_computed:
            parts.append(cross)
        else:
            is_computed = step <= warm_up or step % interval == 0 or step == last_computed
            parts.append(NOTHING if is_computed else attention)
    return Plan(tuple(_in_model(each, sampling.layout) for each in parts))


def pab(sampling: Sampling, interval: float) -> Plan:
    """PAB, pyramid attention broadcast (arXiv 2408.12588; github.com/NUS-HPC-AI-Lab/VideoSys): within a
    window of the noise, attention is computed at each n-th step and cross-attention, which changes less, at
    each (n + 4)-th; the MLPs of the first blocks are reused for two steps after each of five. What is
    computed refreshes its cache though the rest of the step is reused. Published for Latte: interval 2,
    window 100 to 800 of 1000, MLPs of 5 of 28 blocks; faster: 3 and 5.

    The source's intervals count from the first step and not from the window's. Latte and Open-Sora cache
    behind the gate, CogVideoX and ours before it. The five steps are spread evenly over the window, where the
    source lists timesteps; attention over time and space is one here, at the interval of the spatial one.
    """
    own, cross = round(interval), round(interval) + 4
    window = [step for step, time in enumerate(_timesteps(sampling.sigmas)) if 100 < time < 800]
    early = range(max(1, round(5 / 28 * sampling.blocks)))
    computed = {window[(number + 1) * len(window) // 6] for number in range(5)} if window else set()
    parts = []
    for step in range(sampling.steps):
        is_inside = step in window
        has_mlp = step not in computed and not computed.isdisjoint((step - 1, step - 2))
        parts.append(
            Parts(
                attention=EVERY_BLOCK if is_inside and step % own else NO_BLOCK,
                cross_attention=EVERY_BLOCK if is_inside and step % cross else NO_BLOCK,
                mlp=early if has_mlp else NO_BLOCK,
            )
        )
    return Plan(tuple(_in_model(each, sampling.layout) for each in parts), refreshes=True)


def _timesteps(sigmas: Floats) -> Floats:
    """(steps,) noise of each step from 0 to 1000, in whole numbers: of a flow model its sigma, else that of
    the flow model's with the same ratio of signal to noise."""
    is_flow = likely_prediction(sigmas) == "flow"
    return np.round(1000 * (sigmas if is_flow else sigmas / (1 + sigmas)))[:-1]


def taylorseer(sampling: Sampling, interval: float) -> Plan:
    """TaylorSeer (arXiv 2503.06923; github.com/Shenyi-Z/TaylorSeer) and HiCache (arXiv 2508.16984): three
    full steps, then each n-th; between them each branch is forecast from its last full steps before it is
    gated, as the mode of the correction says. Published for Flux: interval 6.

    Of order 2, ours takes the second difference as soon as there are three full steps, as the source does for
    DiT; for Flux it waits for one more.
    """
    full, since = set(), 0
    for step in range(sampling.steps):
        since = since + 1 if step >= _FIRST_ENHANCED and since < round(interval) - 1 else 0
        if since == 0:
            full.add(step)
    return reuse_between(full, sampling)


_FIRST_ENHANCED = 3


def reuse_between(full: set[int], sampling: Sampling) -> Plan:
    return Plan.of([step not in full for step in range(sampling.steps)], EVERYTHING)


def _blocks(start: int, end: int) -> Parts:
    """All branches of these blocks."""
    blocks = range(max(start, 0), max(end, 0))
    return Parts(blocks, blocks, blocks) if len(blocks) else NOTHING


def _in_model(parts: Parts, layout: Layout) -> Parts:
    """NOTHING if the model has none of these parts: such a step is full."""
    has_any = any(
        parts.has(position, branch.kinds) for position, block in enumerate(layout) for branch in block
    )
    return parts if has_any else NOTHING
