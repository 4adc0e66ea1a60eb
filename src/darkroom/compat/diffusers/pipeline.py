"""Pipelines with diffusers' names and arguments."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

import torch

from darkroom.adapters.applied import applied
from darkroom.adapters.merged import Merged
from darkroom.checkpoint.family import Family
from darkroom.checkpoint.settings import scheduler_json
from darkroom.compat.diffusers.adapters import Adapted
from darkroom.compat.diffusers.autoencoders import Autoencoder
from darkroom.compat.diffusers.call import (
    Call,
    Embeds,
    ImagePipelineOutput,
    Stepped,
    both,
    by_encoder,
    checked_latents,
    count_calls,
    drawing,
    foreign,
    output_of,
    shown,
)
from darkroom.compat.diffusers.calls import Calls, Running
from darkroom.compat.diffusers.job import Batch, Raised, Told
from darkroom.compat.diffusers.parts import Parts
from darkroom.compat.diffusers.placed import Placed, dtype_of, opened
from darkroom.compat.diffusers.prompts import encode
from darkroom.compat.diffusers.schedulers import scheduler_of
from darkroom.compat.diffusers.schedulers.base import Scheduler
from darkroom.engine import Engine, LatentDiffusion, place
from darkroom.errors import InvalidRequest, ModelError
from darkroom.generation import Request
from darkroom.generation.settle import check_drawable, check_size
from darkroom.library.locate import locate
from darkroom.model import Model, load
from darkroom.weights.dtypes import dtype_name

log = logging.getLogger(__name__)

Own = TypeVar("Own", bound="DiffusionPipeline")

_IGNORED = {
    *("safety_checker", "feature_extractor", "image_encoder", "requires_safety_checker"),
    *("use_safetensors", "local_files_only", "cache_dir", "revision", "token", "use_auth_token"),
    *("force_download", "resume_download", "proxies", "mirror", "low_cpu_mem_usage", "add_watermarker"),
    *("original_config", "original_config_file", "config", "load_safety_checker", "custom_revision"),
    *("offload_state_dict", "offload_folder", "max_memory", "extract_ema", "image_size", "scheduler_type"),
    *("disable_mmap", "trust_remote_code", "use_onnx", "provider", "output_loading_info"),
}
"""Arguments of from_pretrained and from_single_file that change nothing here: nothing is downloaded, and what these
name is not needed."""


_NOT_COPIED = ("_loaded", "_loading", "_last", "_running", "_threads")


class DiffusionPipeline(Calls, Adapted, Placed, Parts):
    """A model on disk, a scheduler, and where they are to run; networks are loaded when they are first needed.

    Use `from_pretrained` or `from_single_file`. Raises ModelError for what is no model or another family's, and
    InvalidRequest for arguments that cannot be honoured.
    """

    tensor_inputs: ClassVar[tuple[str, ...]] = ("latents", "prompt_embeds", "negative_prompt_embeds")

    def __init__(
        self,
        path: Path | None = None,
        options: Mapping[str, Any] = MappingProxyType({}),
        scheduler: Scheduler | None = None,
        **parts: Any,
    ) -> None:
        if path is None or parts:
            raise InvalidRequest(
                f"{type(self).__name__}(...): a pipeline is not put together from parts here: use from_pretrained, "
                "from_single_file, or from_pipe for the same networks"
            )
        with opened(path, options) as source:
            self._family = source.family
            own = scheduler_json(source)
        self._begin_calls()
        self.scheduler = scheduler if scheduler is not None else scheduler_of(own)
        self.path = path
        self.dtype: torch.dtype = torch.float32
        self.device = torch.device("cpu")
        self._options = dict(options)
        self._memory = "full"
        self._tiled = False
        self._bar: dict[str, Any] = {}
        self._loaded: Model | None = None
        self._loading = threading.RLock()
        self._begin_adapters()

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"{type(self).__name__} has no {name!r} here: docs/compat.md lists what there is"
        )

    # Where models come from

    @classmethod
    def from_pretrained(
        cls: type[Own],
        pretrained_model_name_or_path: str | Path,
        *,
        torch_dtype: Any = None,
        dtype: Any = None,
        variant: str | None = None,
        scheduler: Scheduler | None = None,
        vae: Any = None,
        device_map: str | None = None,
        **others: Any,
    ) -> Own:
        """A pipeline of a folder in the Hugging Face layout, or of a model that `darkroom models` lists.

        `torch_dtype`: what the networks compute in, float32 if left out as in diffusers. `text_encoder_3=None` leaves
        Stable Diffusion 3's T5 out. Nothing is downloaded: `darkroom models pull` does that.
        """
        options: dict[str, Any] = {"variant": variant} if variant else {}
        if vae is not None:
            options["vae"] = Autoencoder.path_of(vae)
        for name, value in others.items():
            if name in ("text_encoder_3", "tokenizer_3") and value is None:
                options["t5"] = False
            elif name not in _IGNORED and value is not None:
                raise InvalidRequest(
                    f"from_pretrained takes no {name!r} here: see docs/compat.md for what it takes"
                )
        if scheduler is not None and not isinstance(scheduler, Scheduler):
            raise InvalidRequest(
                f"scheduler is {foreign(scheduler)}: import it from darkroom.compat.diffusers"
            )
        path = locate(pretrained_model_name_or_path)
        with opened(path, options) as source:
            kind = cls._for(source.family)
        pipe = kind(path, options, scheduler)
        pipe.to(dtype_of(torch_dtype if torch_dtype is not None else dtype))
        if device_map in ("balanced", "auto"):
            pipe.to(place().device)
        elif device_map is not None:
            pipe.to(device_map)
        return pipe

    @classmethod
    def from_single_file(cls: type[Own], pretrained_model_link_or_path: str | Path, **options: Any) -> Own:
        """A pipeline of one file with a checkpoint. Arguments as for `from_pretrained`."""
        return cls.from_pretrained(pretrained_model_link_or_path, **options)

    @classmethod
    def from_pipe(cls: type[Own], pipeline: DiffusionPipeline, **options: Any) -> Own:
        """A pipeline of the same networks as another's."""
        kind = cls._for(pipeline._family)
        pipeline._ready()
        wanted = dtype_of(options.pop("torch_dtype", options.pop("dtype", None)))
        if options:
            raise InvalidRequest(f"from_pipe takes no {next(iter(options))!r} here: set it on the pipeline")
        made = kind.__new__(kind)
        made.__dict__ = dict(pipeline.__dict__)
        made._begin_calls()
        return made.to(wanted)

    def __getstate__(self) -> dict[str, Any]:
        """All but the networks, which a copy loads when it needs them, and the calls that run."""
        kept = {name: value for name, value in self.__dict__.items() if name not in _NOT_COPIED}
        return kept | {"_fused": [(None, doses) for _, doses in self._fused]}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__ = {**state, "_loaded": None, "_loading": threading.RLock()}
        self._begin_calls()

    @classmethod
    def _for(cls: type[Own], family: Family) -> type[Own]:
        """This class, or the one of the family. Raises ModelError where this class is another family's."""
        kind = next(each for each in DiffusionPipeline.__subclasses__() if each.draws(family))
        if issubclass(cls, kind):
            return cls
        if issubclass(kind, cls):
            return kind
        raise ModelError(f"the model is {family.name}: use {kind.__name__}, or DiffusionPipeline for any")

    @classmethod
    def draws(cls, family: Family) -> bool:
        """Whether this is the pipeline of a family's models."""
        raise NotImplementedError

    def _ready(self) -> Model:
        with self._loading:
            if self._loaded is None:
                self._loaded = self._load()
                # What was in the weights of the networks before is to be in these.
                fused, self._fused = self._fused, []
                self._fused = [(Merged(self._expert.networks, doses), doses) for _, doses in fused]
            return self._loaded

    def _load(self) -> Model:
        precision = dtype_name(self.dtype)
        if self.device.type == "cpu" and precision == "float16":
            log.info("a CPU has no fast float16: computing in float32")
            precision = "float32"
        return load(
            self.path, device=str(self.device), precision=precision, memory=self._memory, **self._options
        )

    def _networks(self) -> LatentDiffusion:
        networks = self._ready().engine.networks
        assert isinstance(networks, LatentDiffusion)
        return networks

    # A call

    def _encode(
        self,
        prompts: Sequence[Any],
        negatives: Sequence[Any],
        given: Embeds,
        *,
        images: int,
        guided: bool,
        skip: int | None = None,
        t5_length: int = 256,
        lora_scale: float = 1.0,
    ) -> Embeds:
        """What the network is told of each picture: of `prompts`, one entry an encoder, unless they are given ready.

        Each prompt stands for `images` pictures, one after the other.
        """
        prompt, pooled = given.prompt, given.pooled
        text = self._expert.text
        if (prompts[0] is None) == (prompt is None):
            raise InvalidRequest("give either prompt or prompt_embeds")
        if negatives[0] is not None and given.negative is not None:
            raise InvalidRequest(
                "both negative_prompt and negative_prompt_embeds were given: give one of them"
            )
        if prompt is None:
            texts = by_encoder("prompt", prompts)
            prompt, pooled = self._read(texts, skip or 0, t5_length, lora_scale)
        elif pooled is None and any(clip.use.pooled for clip in text.clips):
            raise InvalidRequest("prompt_embeds were given without pooled_prompt_embeds: give both")
        negative, negative_pooled = given.negative, given.negative_pooled
        if guided and negative is None:
            if negatives[0] is None and self._family.zero_empty:
                negative, negative_pooled = (
                    torch.zeros_like(prompt),
                    None if pooled is None else torch.zeros_like(pooled),
                )
            else:
                texts = by_encoder("negative_prompt", [negatives[0] or "", *negatives[1:]], len(prompt))
                negative, negative_pooled = self._read(texts, 0, t5_length, lora_scale)
        elif guided and negative_pooled is None and pooled is not None:
            raise InvalidRequest(
                "negative_prompt_embeds were given without negative_pooled_prompt_embeds: give both"
            )
        if guided and negative is not None and negative.shape != prompt.shape:
            raise InvalidRequest(
                f"negative_prompt_embeds have the shape {tuple(negative.shape)}, prompt_embeds "
                f"{tuple(prompt.shape)}: they must be the same"
            )
        found = (prompt, negative if guided else None, pooled, negative_pooled if guided else None)
        return Embeds(*(None if each is None else each.repeat_interleave(images, dim=0) for each in found))

    def _read(
        self, texts: Sequence[Sequence[str]], skip: int, t5_length: int, lora_scale: float
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What the text encoders make of texts, with the LoRAs that are used."""
        expert = self._expert
        with self._networks().lock, ExitStack() as changed:
            for role, network in expert.networks.items():
                if role != expert.role:
                    changed.enter_context(applied(network, role, [self._doses(role, lora_scale)]))
            return encode(expert.text, texts, skip=skip, t5_length=t5_length, embeddings=self._embeddings)

    def _run(
        self,
        call: Call,
        prompts: Sequence[Any],
        negatives: Sequence[Any],
        given: Embeds,
        t5_length: int = 256,
    ) -> ImagePipelineOutput | tuple[Any, ...]:
        """Make the pictures of a call, having checked all of it before anything is loaded or computed."""
        family = self._family
        check_drawable(family, self.path.name)
        if not isinstance(self.scheduler, Scheduler):
            raise InvalidRequest(
                f"scheduler is {foreign(self.scheduler)}: import it from darkroom.compat.diffusers"
            )
        call = call.checked(self.tensor_inputs)
        width, height = call.width or family.native, call.height or family.native
        check_size(Request("", width=width, height=height).checked(), family)
        with self._call(self.scheduler) as state:
            return self._called(state, call, prompts, negatives, given, (width, height), t5_length)

    def _called(
        self,
        state: Running,
        call: Call,
        prompts: Sequence[Any],
        negatives: Sequence[Any],
        given: Embeds,
        size: tuple[int, int],
        t5_length: int,
    ) -> ImagePipelineOutput | tuple[Any, ...]:
        family, (width, height) = self._family, size
        way = self.scheduler.set_timesteps(
            call.num_inference_steps if call.timesteps is None and call.sigmas is None else None,
            eta=call.eta,
            timesteps=call.timesteps,
            sigmas=call.sigmas,
            mu=call.mu,
        )
        calls = count_calls(way, call.denoising_end, self.scheduler.config.num_train_timesteps)
        state._guidance_scale, state._guidance_rescale = call.guidance_scale, call.guidance_rescale
        state._clip_skip, state._num_timesteps = call.clip_skip, calls
        embeds = self._encode(
            prompts,
            negatives,
            given,
            images=call.num_images_per_prompt,
            guided=self.do_classifier_free_guidance,
            skip=call.clip_skip,
            t5_length=t5_length,
            lora_scale=call.lora_scale,
        )
        assert embeds.prompt is not None
        count, factor = len(embeds.prompt), family.factor
        shape = (count, family.latent_channels, height // factor, width // factor)
        draw = drawing(call.generator, shape, self.device)
        latents = draw(self.dtype) if call.latents is None else checked_latents(call.latents, shape)
        told = Told(
            both(embeds.negative, embeds.prompt),
            both(embeds.negative_pooled, embeds.pooled),
            call.time_ids(height, width, count, guided=embeds.negative is not None) if family.sizes else None,
            call.guidance_scale,
            call.guidance_rescale,
            call.guidance_scale if family.embeds_guidance else None,
            self._doses(self._expert.role, call.lora_scale),
        )
        noise_dtype = torch.float32 if way.float32_noise else self.dtype
        with self.progress_bar(total=calls if call.denoising_end else len(way.points) - 1) as bar:
            stepped = Stepped(self, call, told, embeds, way, calls, bar)
            job = Batch(way, latents, told, lambda: draw(noise_dtype), stepped, output_of(call.output_type))
            made = self._develop(job)
        found = ImagePipelineOutput(shown(made, call.output_type, self.device, self.dtype))
        return found if call.return_dict else found.to_tuple()

    def _develop(self, job: Batch) -> list[Any]:
        networks = self._networks()
        if self._tiled:
            networks = replace(networks, memory=replace(networks.memory, tiled=True))
        engine = Engine(networks)
        task = engine.submit(job)
        try:
            engine.run()
        finally:
            task.cancel()
        try:
            made: list[Any] = task.result()
        except Raised as error:
            raise error.args[0] from None
        return made
