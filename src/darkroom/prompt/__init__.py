"""Prompts: text to tokens, tokens to what the networks are told."""

from darkroom.prompt.conditioning import Conditioning, TextConditioner
from darkroom.prompt.tokenizer import Tokenizer

__all__ = ["Conditioning", "TextConditioner", "Tokenizer"]
