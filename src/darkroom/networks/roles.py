"""What a network is in a model."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """What a network is in a model, by the name of its folder in the Hugging Face layout."""

    UNET = "unet"
    TRANSFORMER = "transformer"
    VAE = "vae"
    TEXT_ENCODER = "text_encoder"
    TEXT_ENCODER_2 = "text_encoder_2"
    TEXT_ENCODER_3 = "text_encoder_3"
    IMAGE_ENCODER = "image_encoder"
    IMAGE_NORMALIZER = "image_normalizer"

    @property
    def denoises(self) -> bool:
        return self in DENOISERS

    @property
    def looks(self) -> bool:
        """Whether it is about what a picture is told as, for those models that are told of one."""
        return self in LOOKERS

    @property
    def reads_text(self) -> bool:
        return self in _TOKENIZERS

    @property
    def tokenizer(self) -> str:
        """The folder of a text encoder's tokenizer."""
        return _TOKENIZERS[self]


DENOISERS = (Role.UNET, Role.TRANSFORMER)
LOOKERS = (Role.IMAGE_ENCODER, Role.IMAGE_NORMALIZER)
_TOKENIZERS = {
    Role.TEXT_ENCODER: "tokenizer",
    Role.TEXT_ENCODER_2: "tokenizer_2",
    Role.TEXT_ENCODER_3: "tokenizer_3",
}
