"""What the demo models are called and how they are sampled. Needs no host."""

CFG = {"image": 2.5, "video": 2.5, "image_fewstep": 1.0, "image_dit": 2.5}


def kind_of(name: str) -> str:
    """What a demo model makes: "image" or "video"."""
    return name.split("_")[0]
