"""OmniCache for ComfyUI: the entry point the host calls, and the folder of the front-end extension."""

WEB_DIRECTORY = "./js"

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]


async def comfy_entrypoint():
    """Called once by the host. The nodes import the host's modules, so they are loaded here and not
    before."""
    from .nodes import OmniCacheExtension

    return OmniCacheExtension()
