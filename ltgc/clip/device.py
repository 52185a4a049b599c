"""Which device a model computes on."""

import torch

from ltgc.pipeline.errors import LTGCError


def pick_device(device: str) -> torch.device:
    """The torch device; auto is the GPU if there is one. Raises LTGCError when cuda is asked for and absent."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise LTGCError("device: cuda is asked for, but torch sees no GPU; set it to auto or cpu in params.yaml")
    return torch.device(device)
