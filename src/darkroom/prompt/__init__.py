"""Prompts: text to tokens, tokens to what the networks are told."""

from darkroom.prompt.conditioning import ClipText, Conditioning, Prompt, T5Text, TextConditioner, TextUse
from darkroom.prompt.t5_tokenizer import T5Tokenizer
from darkroom.prompt.tokenizer import Tokenizer

__all__ = [
    "ClipText",
    "Conditioning",
    "Prompt",
    "T5Text",
    "T5Tokenizer",
    "TextConditioner",
    "TextUse",
    "Tokenizer",
]
