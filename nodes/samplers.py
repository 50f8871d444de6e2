"""What is known of the host's samplers when steps are reused; docs/samplers.md has the measurements."""

from dataclasses import replace

from ..omnicache.correction import Correction

# These choose their own steps instead of following the scheduler's: a plan made on the scheduler's sigmas
# would say nothing of theirs.
FREE_RUNNING_SAMPLERS = ("dpm_fast", "dpm_adaptive")

_DRAWING_NOISE = ("ancestral", "sde", "ddpm", "seeds", "sa_solver")


def name_of(sampler) -> str:
    """As in the sampler menu, as far as the host's sampler object tells."""
    function = getattr(sampler, "sampler_function", None)
    return getattr(function, "__name__", "").removeprefix("sample_").removesuffix("_function")


def amplifies(name: str) -> bool:
    """Whether it makes any small difference large, so that nothing sure can be said of the picture."""
    return name.startswith("lcm") or reads_guidance(name)


def reads_guidance(name: str) -> bool:
    """True if the sampler itself reads the parts that guidance is made of, which are there only where the
    model is computed: CFG++, also as the host's node SamplerEulerCFGpp names it."""
    return "cfg_pp" in name or name == "euler_pp"


def draws_noise(name: str) -> bool:
    """Whether it adds new noise at each step, which the noise of a cache measured at the last step cannot
    foretell."""
    return any(word in name for word in _DRAWING_NOISE)


def suited(correction: Correction, name: str, prediction: str) -> Correction:
    """A default correction, as this sampler has it best: new noise at each step bends no parabola, and a
    line magnifies it less. Models that predict the noise give it back, and repay would take it for an error
    (docs/samplers.md).

    prediction: what the model predicts, see noise_axis.
    """
    if correction.mode != "forecast" or not (draws_noise(name) or name.startswith("lcm")):
        return correction
    return replace(correction, order=1, repay=correction.repay if prediction == "flow" else 0.0)


def remark_on(name: str, calibrated_with: str | None) -> str | None:
    """What a user of this sampler should know, or None. calibrated_with: the sampler of the profile in
    use."""
    if name in FREE_RUNNING_SAMPLERS:
        return (
            f"sampler: {name} chooses its own steps, so nothing can be planned for it and it runs uncached. "
            "Take another sampler to reuse steps; docs/samplers.md compares them."
        )
    if amplifies(name):
        return (
            f"sampler: {name} makes small differences large, so reuse may change the picture. Take another "
            "sampler if it must stay; docs/samplers.md compares them."
        )
    if draws_noise(name) and calibrated_with not in (None, name):
        return (
            f"sampler: {name} adds new noise at each step, and the profile was calibrated with "
            f"{calibrated_with}, which promises too much for it. Calibrate with {name}, or lower the budget."
        )
    return None
