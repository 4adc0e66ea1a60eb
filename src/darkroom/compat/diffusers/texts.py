"""A pipeline's text encoders, as scripts that encode prompts by themselves speak to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from darkroom.compat.diffusers.faces import Network, network
from darkroom.compat.diffusers.outputs import BaseOutput
from darkroom.networks import CLIPText

States = tuple[Tensor, ...]


@dataclass
class _Output(BaseOutput):
    def to_tuple(self) -> tuple[Any, ...]:
        """As in transformers, of what there is alone."""
        return tuple(each for each in super().to_tuple() if each is not None)


@dataclass
class TextOutput(_Output):
    """`last_hidden_state` (B, T, width), after the final norm; `pooler_output` (B, width), what it is where the text
    ends; `hidden_states`, those of every layer before that norm, the embeddings first."""

    last_hidden_state: Tensor
    pooler_output: Tensor | None = None
    hidden_states: States | None = None


@dataclass
class TextEmbedsOutput(_Output):
    """The same of an encoder with a projection: `text_embeds` (B, P) is the pooled state behind it."""

    text_embeds: Tensor
    last_hidden_state: Tensor
    hidden_states: States | None = None


class _TextEncoder(Network):
    """A text encoder as transformers' are called."""

    embedding: ClassVar[str]

    def get_input_embeddings(self) -> Any:
        """The vectors of tokens."""
        return self.get_submodule(self.embedding)  # type: ignore[attr-defined]

    def __call__(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        output_hidden_states: bool = False,
        return_dict: bool = True,
        **_: Any,
    ) -> Any:
        """Of token ids (B, T). Without `return_dict` a tuple."""
        seen = None if attention_mask is None else attention_mask.to(self.device) != 0
        if seen is not None and bool(seen.all()):
            seen = None  # It says nothing.
        output = self._output(self._run(input_ids.to(self.device), seen), output_hidden_states)
        return output if return_dict else output.to_tuple()

    def _output(self, found: Any, hidden: bool) -> BaseOutput:
        """What our network made, as transformers' has it, with the `hidden` states or without."""
        raise NotImplementedError


class _CLIPText(_TextEncoder):
    embedding = "text_model.embeddings.token_embedding"

    def _output(self, found: Any, hidden: bool) -> BaseOutput:
        states = found.hidden_states if hidden else None
        if found.projected is not None:
            return TextEmbedsOutput(found.projected, found.last, states)
        return TextOutput(found.last, found.pooled, states)


class _T5Encoder(_TextEncoder):
    embedding = "shared"

    def _output(self, found: Any, hidden: bool) -> BaseOutput:
        return TextOutput(found)


def text_encoder(of: nn.Module | None) -> Any:
    """A text encoder's face."""
    return network(of, _CLIPText if isinstance(of, CLIPText) else _T5Encoder)
