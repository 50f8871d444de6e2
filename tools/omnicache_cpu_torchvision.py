"""Lets a CUDA build of torchvision import beside a torch without CUDA. Copied into the embedded host's
environment.

torchvision registers shape functions for two operators that its library, which cannot load, would have
defined. Their schemas are defined here right before torchvision is imported; nothing calls the operators
themselves.
"""

import sys

SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


class _BeforeTorchvision:
    library = None

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "torchvision" and self.library is None:
            import torch

            type(self).library = torch.library.Library("torchvision", "DEF")
            for operator in ("nms", "qnms"):
                self.library.define(f"{operator}{SCHEMA}")


sys.meta_path.insert(0, _BeforeTorchvision())
