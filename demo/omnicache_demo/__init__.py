"""The demo's own nodes: text to conditioning, an empty latent, and latents back to pictures."""

__all__ = ["comfy_entrypoint"]


async def comfy_entrypoint():
    """Called once by the host. The nodes import the host's modules, so they are loaded here and not
    before."""
    from .nodes import DemoExtension

    return DemoExtension()
