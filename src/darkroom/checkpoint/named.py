"""A part's tensors by the names that its network gives them."""

from __future__ import annotations

import math

from torch import Tensor

from darkroom.checkpoint.source import Part


class Named:
    """Reads a part's tensors one by one, in the shapes of its network."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.network = part.build()
        self.shapes = {name: tuple(tensor.shape) for name, tensor in self.network.state_dict().items()}
        self.rules = {name: rule for rule in part.rules(self.network) for name in rule.ours}

    def get(self, name: str) -> Tensor | None:
        rule = self.rules.get(name)
        if rule is None:
            return None
        tensor = self.part.read(rule)[name]
        shape = self.shapes[name]
        return tensor.reshape(shape) if tensor.numel() == math.prod(shape) else tensor
