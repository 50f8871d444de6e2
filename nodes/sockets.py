"""The values that travel between the pack's nodes, and the folder of a workflow's node menu."""

from comfy_api.latest import io

CATEGORY = "OmniCache"

ProfileSocket = io.Custom("OMNICACHE_PROFILE")  # omnicache.profile.Profile
ScheduleSocket = io.Custom("OMNICACHE_SCHEDULE")  # omnicache.schedule.Planner
CorrectionSocket = io.Custom("OMNICACHE_CORRECTION")  # omnicache.correction.Correction
