"""How a model uses its CLIP text encoders."""

from __future__ import annotations

from dataclasses import dataclass

PAD_OPENCLIP = "!"


@dataclass(frozen=True)
class TextUse:
    """What a model takes of one CLIP text encoder.

    layer: which of the encoder's states, -1 the last; normed: through the final norm; pooled: whether its projected end
    state is part of the pooled vector; pad: the sign that fills a text up to its length.
    """

    layer: int = -1
    normed: bool = True
    pooled: bool = False
    pad: str = "<|endoftext|>"

    @property
    def openclip(self) -> bool:
        """Whether the encoder is one of OpenCLIP's: Stable Diffusion pads texts otherwise for these."""
        return self.pad == PAD_OPENCLIP
