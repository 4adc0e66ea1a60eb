"""Prompts: text to tokens, tokens to what the networks are told."""

from typing import TYPE_CHECKING

from darkroom.lazy import lazily

if TYPE_CHECKING:
    from darkroom.prompt.conditioning import ClipText, Prompt, T5Text, TextConditioner
    from darkroom.prompt.t5_tokenizer import T5Tokenizer
    from darkroom.prompt.tokenizer import Tokenizer
    from darkroom.prompt.use import TextUse

__all__ = [
    "ClipText",
    "Prompt",
    "T5Text",
    "T5Tokenizer",
    "TextConditioner",
    "TextUse",
    "Tokenizer",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "conditioning": "ClipText Prompt T5Text TextConditioner",
        "t5_tokenizer": "T5Tokenizer",
        "tokenizer": "Tokenizer",
        "use": "TextUse",
    },
)
