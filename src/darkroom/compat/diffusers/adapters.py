"""LoRAs and textual inversions of a pipeline, under diffusers' names."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from darkroom.adapters.adapter import Adapter, read_adapter
from darkroom.adapters.dose import Dose
from darkroom.adapters.embeddings import ENCODERS, OUTPUTS, checked, for_encoders, read_embedding
from darkroom.adapters.merged import Merged
from darkroom.compat.diffusers.arguments import a_number
from darkroom.compat.diffusers.faces import same_network
from darkroom.errors import InvalidRequest, nearest
from darkroom.library.locate import locate
from darkroom.networks import CLIPText
from darkroom.networks.roles import Role
from darkroom.numeric import real
from darkroom.prompt.vocabulary import Embedding, Embeddings

_UNNAMED = ("*", "emb_params", *ENCODERS, *OUTPUTS)
"""What files call vectors without naming their word."""

Weights = float | Sequence[float | Mapping[str, float]] | Mapping[str, float]


class Adapted:
    """What a pipeline's networks are changed by. `_ready` loads them, `_expert` has them; given by the pipeline."""

    path: Path
    _expert: Any
    _adapters: dict[str, Adapter]
    _weights: dict[str, Mapping[str, float] | float]
    _active: list[str]
    _fused: list[tuple[Merged, dict[Role, list[Dose]]]]
    _words: dict[str, Embedding]
    _enabled: bool

    def _begin_adapters(self) -> None:
        self._adapters, self._weights, self._active, self._fused, self._words = {}, {}, [], [], {}
        self._enabled = True

    # LoRA

    def load_lora_weights(
        self,
        pretrained_model_name_or_path_or_dict: str | Path | Mapping[str, Tensor],
        adapter_name: str | None = None,
        weight_name: str | None = None,
        **_: Any,
    ) -> None:
        """Read a LoRA: a file, a folder with `weight_name` or diffusers' own name in it, a name of the library, or its
        tensors; and use it instead of those used so far. Raises ModelError where it does not fit, wholly."""
        name = adapter_name or f"default_{len(self._adapters)}"
        if name in self._adapters:
            raise InvalidRequest(f"there is an adapter {name!r} already: choose another adapter_name")
        given, networks = pretrained_model_name_or_path_or_dict, self._expert.networks
        if isinstance(given, Mapping):
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "adapter.safetensors"
                save_file({key: tensor.detach().cpu().contiguous() for key, tensor in given.items()}, file)
                found = read_adapter(file, networks, self.path.name, name)
        else:
            path = locate(given, kind="lora")
            found = read_adapter(path / weight_name if weight_name else path, networks, self.path.name, name)
        self._adapters[name] = found
        self._weights[name] = 1.0
        self._active = [name]

    def unload_lora_weights(self, **_: Any) -> None:
        """Forget all LoRAs."""
        self.unfuse_lora()
        self._adapters, self._weights, self._active = {}, {}, []

    def set_adapters(
        self, adapter_names: str | Sequence[str], adapter_weights: Weights | None = None
    ) -> None:
        """Use these LoRAs and no others, each with its weight: a number, or one for each of "unet" (or "transformer"),
        "text_encoder" and "text_encoder_2"."""
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        given: Any = adapter_weights
        single = given is None or isinstance(given, Mapping) or real(given) is not None
        weights: list[Any] = [given] * len(names) if single else list(given)
        weights = [each if (number := real(each)) is None else number for each in weights]
        if len(weights) != len(names):
            raise InvalidRequest(
                f"adapter_weights has {len(weights)} entries for {len(names)} adapters: give as many"
            )
        for name, weight in zip(names, weights, strict=True):
            self._known(name)
            if isinstance(weight, Mapping) and any(real(each) is None for each in weight.values()):
                raise InvalidRequest(
                    f"adapter_weights of {name} are {dict(weight)}: give a number for each network; weights by block "
                    "are in model.generate(adapters=['NAME:lbw=...'])"
                )
        self._weights |= {
            name: 1.0 if weight is None else weight for name, weight in zip(names, weights, strict=True)
        }
        self._active = names

    def _known(self, name: str) -> Adapter:
        if name not in self._adapters:
            hint = nearest(name, self._adapters) if self._adapters else "load_lora_weights reads one"
            raise InvalidRequest(f"there is no adapter {name!r}: {hint}")
        return self._adapters[name]

    def delete_adapters(self, adapter_names: str | Sequence[str]) -> None:
        """Forget these LoRAs. If none that is left was used, the first of them by name is, as in PEFT."""
        for name in [adapter_names] if isinstance(adapter_names, str) else adapter_names:
            self._known(name)
            del self._adapters[name], self._weights[name]
            if name in self._active:
                self._active.remove(name)
                self._active = self._active or sorted(self._adapters)[:1]

    def get_active_adapters(self) -> list[str]:
        """The names of the LoRAs that are used."""
        return list(self._active)

    def get_list_adapters(self) -> dict[str, list[str]]:
        """The names of all LoRAs, by the networks that they change."""
        found: dict[str, list[str]] = {}
        for name, adapter in self._adapters.items():
            for role in adapter.patches:
                found.setdefault(role, []).append(name)
        return found

    def enable_lora(self) -> None:
        """Use the active LoRAs again."""
        self._enabled = True

    def disable_lora(self) -> None:
        """Make pictures without any LoRA until `enable_lora`."""
        self._enabled = False

    def fuse_lora(
        self,
        components: Sequence[str] | None = None,
        lora_scale: float = 1.0,
        safe_fusing: bool = False,
        adapter_names: Sequence[str] | None = None,
        **_: Any,
    ) -> None:
        """Write the active LoRAs, or those named, into the weights, until `unfuse_lora`."""
        scale = a_number("lora_scale", lora_scale)
        doses: dict[Role, list[Dose]] = {}
        for name in self._active if adapter_names is None else adapter_names:
            adapter = self._known(name)
            for role in adapter.patches:
                if components is None or role in components:
                    amount = scale * _of(self._weights[name], role)
                    doses.setdefault(role, []).append(Dose(adapter, amount))
        self._fused.append((Merged(self._expert.networks, doses), doses))

    def unfuse_lora(self, **_: Any) -> None:
        """Take all that was fused out of the weights, to the bit."""
        while self._fused:
            self._fused.pop()[0].undo()

    @property
    def num_fused_loras(self) -> int:
        return len({dose.adapter for _, doses in self._fused for own in doses.values() for dose in own})

    def _doses(self, role: Role, scale: float) -> tuple[Dose, ...]:
        """What a network gets of each LoRA that is used and not in its weights."""
        if not self._enabled:
            return ()
        fused = {dose.adapter for _, doses in self._fused for dose in doses.get(role, ())}
        found = [(self._adapters[name], self._weights[name]) for name in self._active]
        return tuple(
            Dose(adapter, scale * _of(weight, role)) for adapter, weight in found if adapter not in fused
        )

    # Textual inversion

    def load_textual_inversion(
        self,
        pretrained_model_name_or_path: str | Path | Mapping[str, Tensor] | Tensor | Sequence[Any],
        token: str | Sequence[str | None] | None = None,
        tokenizer: Any = None,
        text_encoder: Any = None,
        weight_name: str | None = None,
        **_: Any,
    ) -> None:
        """Have a word stand for the vectors in a file, in a mapping or in a tensor: `token`, else the file's own, else
        its name. `text_encoder`: the one that they are for; without, all that they are wide enough for."""
        given: Any = pretrained_model_name_or_path
        several = list(given) if isinstance(given, list | tuple) else [given]
        tokens = list(token) if isinstance(token, list | tuple) else [token] * len(several)
        if len(tokens) != len(several):
            raise InvalidRequest(
                f"token has {len(tokens)} entries for {len(several)} embeddings: give as many"
            )
        for each, word in zip(several, tokens, strict=True):
            self._load_word(each, word, text_encoder, weight_name)

    def _load_word(self, given: Any, token: Any, text_encoder: Any, weight_name: str | None) -> None:
        if isinstance(given, Tensor):
            given = {"emb_params": given}
        if isinstance(given, Mapping):
            arrays, where, own = checked(given, "the mapping"), "the mapping", None
        else:
            path = locate(given, kind="embedding")
            path = path / weight_name if weight_name else path
            arrays, where, own = read_embedding(path), str(path), path.stem
        word = token or next((name for name in arrays if name not in _UNNAMED), None) or own
        if word is None:
            raise InvalidRequest("the vectors do not name their word: give token")
        encoders = [each for each in self._expert.networks.items() if isinstance(each[1], CLIPText)]
        chosen = [each for each in encoders if text_encoder is None or same_network(text_encoder, each[1])]
        if text_encoder is not None and not chosen:
            raise InvalidRequest("text_encoder is none of this pipeline's: give pipe.text_encoder or _2")
        widths = {role: each.config.hidden_size for role, each in chosen}
        known = dict(self._words[word].arrays) if word in self._words else {}
        if known.keys() & widths.keys():
            raise InvalidRequest(f"the word {word!r} stands for vectors already: choose another token")
        self._words[word] = Embedding({**known, **for_encoders(arrays, widths, where, self.path.name)})

    def unload_textual_inversion(self, tokens: str | Sequence[str] | None = None, **_: Any) -> None:
        """Have these words, or all, be words again."""
        for token in list(self._words) if tokens is None else [tokens] if isinstance(tokens, str) else tokens:
            if token not in self._words:
                raise InvalidRequest(f"{token!r} stands for no vectors: {nearest(str(token), self._words)}")
            del self._words[token]

    @property
    def _embeddings(self) -> Embeddings:
        return tuple(self._words.items())


def _of(weight: Mapping[str, float] | float, role: Role) -> float:
    """A weight for one network; those that a mapping does not name have 1."""
    return float(weight.get(role, 1.0)) if isinstance(weight, Mapping) else float(weight)
