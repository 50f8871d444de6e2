"""A schedule whose plan is given, to sample what no rule would choose. Call in_process.load_pack() first."""

from dataclasses import dataclass

import numpy as np

from comfyui_omnicache.omnicache.correction import Correction
from comfyui_omnicache.omnicache.plan import Layout, Plan
from comfyui_omnicache.omnicache.profile import Profile


@dataclass(frozen=True)
class GivenPlan:
    """reused: for each of the sampler's steps whether everything is reused. profile: for corrections that
    are measured; nothing is corrected if nothing else is said."""

    reused: tuple[bool, ...]
    profile: Profile | None = None
    default_correction: Correction = Correction("off")
    why_branches: str = ""
    wants_reuse: bool = True
    is_guarded: bool = False
    shown_on: None = None

    def reuse_cost(self) -> float:
        return 0.0

    def plan_for(self, sigmas: np.ndarray, layout: Layout = (), prediction: str | None = None) -> Plan:
        return Plan.of(self.reused)
