"""Pipelines with diffusers' names and arguments."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar, Unpack

import torch
from torch import Tensor

from darkroom.adapters.merged import Merged
from darkroom.checkpoint.family import Family
from darkroom.checkpoint.settings import scheduler_json
from darkroom.compat.diffusers.arguments import Arguments, checked, lora_scale
from darkroom.compat.diffusers.autoencoders import Autoencoder
from darkroom.compat.diffusers.call import (
    ImagePipelineOutput,
    Stepped,
    both,
    checked_latents,
    count_calls,
    foreign,
    output_of,
    shown,
    time_ids,
)
from darkroom.compat.diffusers.calls import Calls, Running
from darkroom.compat.diffusers.job import Batch, Beginning, Output, Raised, Told
from darkroom.compat.diffusers.noise import Drawing, drawing
from darkroom.compat.diffusers.placed import dtype_of, opened
from darkroom.compat.diffusers.prompted import Prompted
from darkroom.compat.diffusers.saving import Saved
from darkroom.compat.diffusers.schedulers import scheduler_of
from darkroom.compat.diffusers.schedulers.base import Scheduler
from darkroom.compat.diffusers.schedulers.way import Way
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


class DiffusionPipeline(Calls, Prompted, Saved):
    """A model on disk, a scheduler, and where they are to run; networks are loaded when they are first needed.

    Use `from_pretrained` or `from_single_file`. Raises ModelError for what is no model or another family's, and
    InvalidRequest for arguments that cannot be honoured.
    """

    needs: ClassVar[str] = ""
    """What models need besides text that this pipeline is for, as `Family.needs` says it."""

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
        kind: type[Own] = next(each for each in cls._kinds() if each.draws(family))
        if family.sees_pictures:
            kind = next((each for each in kind.__subclasses__() if each.needs == family.needs), kind)
        if cls.needs not in ("", family.needs):
            raise ModelError(f"the model is {family.name}, none that needs {cls.needs}: use {kind.__name__}")
        if issubclass(cls, kind):
            return cls
        if issubclass(kind, cls):
            return kind
        raise ModelError(f"the model is {family.name}: use {kind.__name__}, or AutoPipelineFor... for any")

    @classmethod
    def draws(cls, family: Family) -> bool:
        """Whether this is the pipeline of a family's models."""
        return False

    @classmethod
    def _kinds(cls) -> list[Any]:
        """The pipelines that there are of each family."""
        return DiffusionPipeline.__subclasses__()

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

    def __call__(self, *_: Any, **call: Unpack[Arguments]) -> Any:
        """Make pictures; arguments and result are those of diffusers' pipeline of this name."""
        family = self._family
        self._check_drawable()
        if not isinstance(self.scheduler, Scheduler):
            raise InvalidRequest(
                f"scheduler is {foreign(self.scheduler)}: import it from darkroom.compat.diffusers"
            )
        # All of it is checked before anything is loaded or computed.
        call, output = checked(call, self.tensor_inputs), output_of(call["output_type"])
        lora_scale(call)
        sized, height, width = self._sized(call)
        check_size(Request("", width=width, height=height).checked(), family)
        with self._call(self.scheduler) as state:
            made = self._made(sized, state, output, height, width)
        images = shown(made, call["output_type"], self.device, self.dtype)
        found = ImagePipelineOutput(self._laid_over(call, images))
        return found if call["return_dict"] else found.to_tuple()

    def _made(self, call: Arguments, state: Running, output: Output, height: int, width: int) -> list[Any]:
        """The pictures of a call, in the form of the engine's output."""
        family, config = self._family, self.scheduler.config
        layout = {name: call[name] for name in ("timesteps", "sigmas", "mu") if call[name] is not None}
        if "mu" not in layout and config.get("use_dynamic_shifting"):
            layout["mu"] = self._shift(height, width)
        self.scheduler.set_timesteps(call["num_inference_steps"], **layout)
        way = self.scheduler.way(eta=call["eta"])
        first = self._first(call, way)
        calls = count_calls(way, call["denoising_end"], config.num_train_timesteps, first)
        state._guidance_scale, state._guidance_rescale = call["guidance_scale"], call["guidance_rescale"]
        state._image_guidance_scale = call["image_guidance_scale"]
        state._clip_skip, state._num_timesteps = call["clip_skip"], calls
        embeds = self._encoded(call, guided=self.do_classifier_free_guidance)
        assert embeds.prompt is not None
        count, factor = len(embeds.prompt), family.factor
        shape = (count, family.latent_channels, height // factor, width // factor)
        draw = drawing(call["generator"], shape, self.device)
        beginning = self._beginning(call, draw, shape, first)
        guided = embeds.negative is not None
        told = Told(
            both(embeds.negative, embeds.prompt),
            both(embeds.negative_pooled, embeds.pooled),
            self._time_ids(call, height, width, count, guided) if family.sizes else None,
            call["guidance_scale"],
            call["guidance_rescale"],
            call["guidance_scale"] if family.embeds_guidance else None,
            self._doses(self._expert.role, lora_scale(call)),
            beginning.beside,
            call["image_guidance_scale"],
            beginning.labels,
        )
        noise_dtype = torch.float32 if way.float32_noise else self.dtype
        steps = len(way.points) - 1 - (beginning.begun.step if beginning.begun else 0)
        with self.progress_bar(total=calls if call["denoising_end"] else steps) as bar:
            stepped = Stepped(self, call, told, embeds, way, calls, bar)
            job = Batch(way, beginning, told, lambda: draw(noise_dtype), stepped, output, calls)
            return self._develop(job)

    # What a pipeline that begins with a picture does otherwise: see `darkroom.compat.diffusers.image2image`

    def _sized(self, call: Arguments) -> tuple[Arguments, int, int]:
        """A call, and the height and width of its pictures."""
        return call, call["height"] or self._family.native, call["width"] or self._family.native

    def _first(self, call: Arguments, way: Way) -> int:
        """The number of the network call that the way begins with."""
        return 0

    def _beginning(self, call: Arguments, draw: Drawing, shape: tuple[int, ...], first: int) -> Beginning:
        """What a call begins with, for latents of a shape."""
        given = call["latents"]
        return Beginning(draw(self.dtype) if given is None else checked_latents(given, shape))

    def _check_drawable(self) -> None:
        """Raises InvalidRequest for a model that this pipeline is not for."""
        if self._family.needs != self.needs:
            check_drawable(self._family, self.path.name)

    def _laid_over(self, call: Arguments, images: Any) -> Any:
        """What comes of the pictures at the end."""
        return images

    def _time_ids(self, call: Arguments, height: int, width: int, count: int, guided: bool) -> Tensor:
        """What Stable Diffusion XL is told of sizes, a row a picture, those of the negative prompt first."""
        return time_ids(call, height, width, count, guided)

    def _shift(self, height: int, width: int) -> float:
        """The logarithm of a flow's shift for a picture of this size: linear in how many patches it has."""
        config, unit = self.scheduler.config, self._family.unit
        low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        base, most = config.get("base_shift", 0.5), config.get("max_shift", 1.16)
        patches = (height // unit) * (width // unit)
        return float(base + (most - base) / (high - low) * (patches - low))

    def _develop(self, job: Batch) -> list[Any]:
        networks = self._networks()
        if self._tiled:
            networks = replace(networks, memory=replace(networks.memory, parts="tiles"))
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
