"""The nodes, in the order in which a graph uses them."""

from comfy_api.latest import ComfyExtension, io

from . import library
from .auto import OmniCacheAuto
from .class_label import OmniCacheClassLabel
from .curvature_scheduler import CurvatureScheduler
from .diffusers_frames import OmniCacheFramesToBatch
from .diffusers_image_to_video import OmniCacheImageToVideo
from .diffusers_loader import OmniCacheDiffusersLoader
from .diffusers_vae_loader import OmniCacheDiffusersVAELoader
from .model_patch import OmniCacheModelPatch
from .noise_corrector import NoiseCorrector
from .report import OmniCacheReport
from .rival_schedule import RivalSchedule
from .trajectory_calibrator import TrajectoryCalibrator


class OmniCacheExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        library.register()  # before the host asks for the schemas, whose menus list the folder
        return [
            OmniCacheAuto,
            TrajectoryCalibrator,
            CurvatureScheduler,
            RivalSchedule,
            NoiseCorrector,
            OmniCacheModelPatch,
            OmniCacheReport,
            OmniCacheDiffusersLoader,
            OmniCacheClassLabel,
            OmniCacheDiffusersVAELoader,
            OmniCacheImageToVideo,
            OmniCacheFramesToBatch,
        ]
