"""The two ways in which a node is given a profile: connected, or picked from the saved ones."""

from comfy_api.latest import io

from ..omnicache.profile import Profile
from . import library
from .sockets import ProfileSocket


def profile_inputs(remark: str = "") -> list[io.Input]:
    """remark: what the node needs a profile for, for the tooltip."""
    return [
        ProfileSocket.Input(
            "profile",
            optional=True,
            tooltip=f"What Trajectory Calibrator measured; used in place of saved_profile.{remark}",
        ),
        io.Combo.Input(
            "saved_profile",
            options=library.names(),
            default=library.NONE,
            tooltip="A profile saved in models/omnicache, or one that came with the pack; used if nothing is "
            "connected to profile.",
        ),
    ]


def chosen_profile(connected: Profile | None, saved: str) -> Profile | None:
    """The profile that a node was given, if any. Raises ValueError if the saved one cannot be read."""
    if connected is None and saved != library.NONE:
        return library.load(saved)
    return connected
