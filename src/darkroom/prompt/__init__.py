"""Prompts: text to tokens, tokens to what the networks are told."""

from darkroom.prompt.tokenizer import Tokenizer

__all__ = ["Tokenizer"]
