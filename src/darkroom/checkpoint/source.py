"""A model as it lies on disk, whatever its layout: which networks, where their tensors are, how they are to be used.

`open_source` reads headers and configuration files only, in milliseconds; `darkroom.checkpoint.load` fills networks
from what it found, `darkroom.checkpoint.export` writes it in another layout, `darkroom inspect` prints it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from darkroom.checkpoint import configs
from darkroom.checkpoint.family import Family, Preferences
from darkroom.checkpoint.identify import SCALING, Evidence, family_of
from darkroom.checkpoint.infer import HUGGING_FACE, Found, networks_in, within
from darkroom.checkpoint.library import INDEX
from darkroom.checkpoint.rules import SAME, Rule, original_rules
from darkroom.checkpoint.tensors import WeightsFile, open_shards, open_weights
from darkroom.diffusion import Discrete, FlowSchedule, NoiseSchedule, betas, parse_sampler, process
from darkroom.errors import DarkroomError, InvalidRequest, ModelError
from darkroom.networks import VAE, CLIPText, CLIPVision, MMDiT, T5Encoder, TinyVAE, UNet, VAEConfig, unfilled
from darkroom.prompt.tokenizer import Tokenizer

DENOISERS = ("unet", "transformer")


@dataclass(frozen=True)
class Part:
    """One network of a model: its class and dimensions (`described` is the file that gives them, if any), and the file
    that holds its tensors, whose names begin with `prefix` and are of a layout. `change` makes others of them, given
    the network's name of each, as they are read."""

    role: str
    kind: type[nn.Module]
    config: Any
    weights: WeightsFile
    prefix: str = ""
    layout: str = HUGGING_FACE
    described: Path | None = None
    change: Callable[[str, Tensor], Tensor] | None = None

    def build(self) -> nn.Module:
        """The network on the meta device, where it costs nothing."""
        try:
            with unfilled():
                return self.kind(self.config)
        except Exception as error:
            # Numbers that fit no network surface wherever torch first stumbles over them.
            where = self.described or self.weights.path
            raise ModelError(f"{where} describes no {self.role} that can be built: {error}") from error

    def files(self) -> list[Path]:
        """The files of its weights: one, or the shards."""
        return [file.path for file in self.weights.files]

    def rules(self, network: nn.Module) -> list[Rule]:
        """How each of the network's tensors comes from one of the file's. Raises ModelError naming what is missing."""
        own = within(self.weights.entries, self.prefix)
        if self.layout == HUGGING_FACE:
            names = {_today(name, self.kind): name for name in own}
            rules = [Rule(names.get(name, name), (name,), SAME) for name in network.state_dict()]
        else:
            rules = original_rules(network)
        missing = [rule.theirs for rule in rules if rule.theirs not in own and not _computed(rule.ours[0])]
        if missing:
            raise ModelError(
                f"{self.weights.path} lacks {', '.join(self.prefix + name for name in sorted(missing)[:3])} "
                f"({len(missing)} in all): it is incomplete, or its {self.role} is another model's"
            )
        return [rule for rule in rules if rule.theirs in own]

    def read(self, rule: Rule) -> dict[str, Tensor]:
        """The tensors of ours that a rule gives, as the file has them."""
        found = rule.read(self.weights.get(self.prefix + rule.theirs))
        return (
            found if self.change is None else {name: self.change(name, each) for name, each in found.items()}
        )


@dataclass(frozen=True)
class Source:
    """A model on disk. tokenizers: each encoder's own, or its folder, where there is one;
    notes: what was assumed, in words; scheduler, extra: what scheduler_config.json and darkroom.json hold, if any."""

    path: Path
    parts: dict[str, Part]
    family: Family
    tokenizers: Mapping[str, Path | Tokenizer] = field(default_factory=dict)
    notes: Sequence[str] = ()
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def close(self) -> None:
        """Let go of the files; networks that were loaded from them stay."""
        for part in self.parts.values():
            part.weights.close()

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def denoiser(self) -> Part:
        """The U-Net or the MMDiT."""
        for role in DENOISERS:
            if role in self.parts:
                return self.parts[role]
        raise ModelError(f"{self.path} holds no U-Net and no MMDiT: it is {_listed(self.parts)} alone")

    @property
    def expert_roles(self) -> list[str]:
        """The networks that make latents: all that is needed of a refiner."""
        t5 = [role for role in ("text_encoder_3",) if role in self.parts and role in self.tokenizers]
        return [self.denoiser.role, *self.family.text, *t5]

    def build(self) -> dict[str, nn.Module]:
        """Its networks by their roles, on the meta device (see `Part.build`)."""
        return {role: part.build() for role, part in self.parts.items()}

    def files(self) -> dict[str, list[Path]]:
        """The weights files of each part: one, or the shards."""
        return {role: part.files() for role, part in self.parts.items()}


def open_source(
    path: Path,
    *,
    prediction: str | None = None,
    zero_snr: bool | None = None,
    variant: str | None = None,
    others: Sequence[Path] = (),
    t5: bool = True,
) -> Source:
    """What a file or a folder holds. Raises ModelError where it is no model, or a damaged one.

    `prediction` (epsilon, v_prediction, sample, flow) and `zero_snr` override what was found; `variant` picks among a
    folder's files ("fp16"); `others` are files with parts that this one lacks; without `t5` a Stable Diffusion 3 does
    without its largest text encoder. The files stay open for their tensors to be read: use it as a context manager, or
    call `close`.
    """
    with ExitStack() as opened:
        if (path / INDEX).is_file():
            source = _open_folder(path, variant, opened)
        else:
            source = _open_file(path, others, opened)
        source = _without_t5(_overridden(source, prediction, zero_snr), t5)
        opened.pop_all()
    return source


def _overridden(source: Source, prediction: str | None, zero_snr: bool | None) -> Source:
    family, notes = source.family, list(source.notes)
    if prediction is not None:
        family, notes = (
            replace(family, process=process(prediction)),
            [*notes, f"predicts {prediction}: asked for"],
        )
    if zero_snr is not None:
        if not isinstance(family.schedule, Discrete):
            raise InvalidRequest(f"{family.name} is a flow model: it has no terminal SNR to set")
        family = replace(family, schedule=replace(family.schedule, zero_terminal_snr=zero_snr))
    return replace(source, family=family, notes=notes)


def _without_t5(source: Source, wanted: bool) -> Source:
    """The model with a note where its text goes without T5, which reads the long and the exact."""
    role = "text_encoder_3"
    if not wanted and role in source.parts:
        parts = {name: part for name, part in source.parts.items() if name != role}
        if all(part.weights is not source.parts[role].weights for part in parts.values()):
            source.parts[role].weights.close()
        note = "reads prompts with its two CLIPs alone: as asked for"
        return replace(source, parts=parts, notes=[*source.notes, note])
    if "transformer" not in source.parts or (role in source.parts and role in source.tokenizers):
        return source
    why = (
        "its T5 encoder has no tokenizer, which only folders hold"
        if role in source.parts
        else "it has no T5 encoder"
    )
    return replace(source, notes=[*source.notes, f"reads prompts with its two CLIPs alone: {why}"])


def with_vae(source: Source, path: Path) -> Source:
    """The model with the autoencoder of another file, of an autoencoder's folder or of another model."""
    with ExitStack() as opened:
        part = _vae_of(path, source.family, opened)
        if part is None:
            raise ModelError(f"{path} holds no autoencoder: give a VAE's file or folder")
        wanted = source.family.latent_channels
        if part.config.latent_channels != wanted:
            raise ModelError(
                f"{path} makes latents of {part.config.latent_channels} channels, {source.family.name} needs {wanted}"
            )
        opened.pop_all()
    if (own := source.parts.get("vae")) and sum(p.weights is own.weights for p in source.parts.values()) == 1:
        own.weights.close()
    family = replace(source.family, factor=part.config.factor)
    return replace(source, parts={**source.parts, "vae": part}, family=family)


def _vae_of(path: Path, family: Family, opened: ExitStack) -> Part | None:
    if (path / INDEX).is_file():
        return opened.enter_context(open_source(path)).parts.get("vae")
    weights = opened.enter_context(weights_at(path))
    if path.is_dir():
        return _component("vae", path, VAE, configs.vae_config, weights)
    found = [each for each in networks_in(_shapes(weights)) if each.kind in (VAE, TinyVAE)]
    part = _part("vae", found[0], weights, _said(weights)) if found else None
    if part is None or part.kind is not VAE or "vae" in _said(weights):
        return part
    return replace(part, config=_scaled(part.config, family))


# Folders


_ROLES: Mapping[str, tuple[type[nn.Module], Any]] = {
    "unet": (UNet, configs.unet_config),
    "transformer": (MMDiT, configs.mmdit_config),
    "vae": (VAE, configs.vae_config),
    "text_encoder": (CLIPText, configs.text_config),
    "text_encoder_2": (CLIPText, configs.text_config),
    "text_encoder_3": (T5Encoder, configs.t5_config),
    "image_encoder": (CLIPVision, configs.vision_config),
}
_STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
_SUFFIXES = (".safetensors", ".bin")


def _open_folder(folder: Path, variant: str | None, opened: ExitStack) -> Source:
    index = read_json(folder / INDEX)
    parts: dict[str, Part] = {}
    for role, (kind, config) in _ROLES.items():
        named = index.get(role)
        if not named or named[0] is None:
            continue
        if not (folder / role).is_dir():
            raise ModelError(f"{folder / role} is missing: the model folder is incomplete")
        if named[-1] == "AutoencoderTiny":
            kind, config = TinyVAE, configs.tiny_config
        weights = opened.enter_context(weights_at(folder / role, variant))
        parts[role] = _component(role, folder / role, kind, config, weights)
    if not any(role in parts for role in DENOISERS):
        raise ModelError(
            f"{folder / INDEX} lists no unet and no transformer: it is no Stable Diffusion model"
        )
    scheduler, extra = (
        read_json(folder / name) if (folder / name).exists() else {}
        for name in ("scheduler/scheduler_config.json", "darkroom.json")
    )
    family, notes = _folder_family(folder, index, parts, scheduler, extra)
    tokenizers = {
        role: folder / role.replace("text_encoder", "tokenizer")
        for role in parts
        if role.startswith("text_encoder") and (folder / role.replace("text_encoder", "tokenizer")).is_dir()
    }
    return Source(folder, parts, family, tokenizers, notes, scheduler, extra)


def _component(role: str, folder: Path, kind: type[nn.Module], config: Any, weights: WeightsFile) -> Part:
    """A component by its config.json, or by its shapes where there is none."""
    file = folder / "config.json"
    if file.is_file():
        try:
            return Part(role, kind, config(read_json(file)), weights, described=file)
        except DarkroomError as error:
            raise ModelError(f"{file}: {error}") from error
    found = [each for each in networks_in(_shapes(weights)) if each.kind is kind]
    if not found:
        raise ModelError(f"{folder} has no config.json, and {weights.path.name} holds no {kind.__name__}")
    return _part(role, found[0], weights)


def weights_at(path: Path, variant: str | None = None) -> WeightsFile:
    """The weights of a file, or of a component's folder: there, of the variant asked for if there is one."""
    if not path.is_dir():
        return open_weights(path)
    name = weights_name({file.name for file in path.iterdir()}, variant)
    if name is None:
        raise ModelError(f"{path} holds no weights: the model folder is incomplete")
    return (open_shards if name.endswith(".json") else open_weights)(path / name)


def weights_name(files: Collection[str], variant: str | None = None) -> str | None:
    """Which of a component's files is the one of its weights, or their index: of the variant asked for, else the plain
    one, else whatever variant there is; safetensors before pickles, whole before sharded. None where none is."""
    for mark in ([variant] if variant else []) + [None, "fp16", "bf16", "non_ema"]:
        dot = f".{mark}" if mark else ""
        for suffix in _SUFFIXES:
            for stem in _STEMS:
                index = f"{stem}{suffix}.index{dot}.json", f"{stem}{dot}{suffix}.index.json"
                for name in (f"{stem}{dot}{suffix}", *index):
                    if name in files:
                        return name
    return None


def _folder_family(
    folder: Path,
    index: Mapping[str, Any],
    parts: Mapping[str, Part],
    scheduler: Mapping[str, Any],
    extra: Mapping[str, Any],
) -> tuple[Family, list[str]]:
    """The family that the networks are of, as the folder's own settings change it."""
    denoiser = next(parts[role] for role in DENOISERS if role in parts)
    encoders = sum(part.kind is CLIPText for part in parts.values())
    openclip = "text_encoder" in parts and getattr(parts["text_encoder"].config, "hidden_act", "") == "gelu"
    called = Evidence({}, "", lambda name: None, file=_called(folder, index))
    family, notes = family_of(denoiser.config, openclip and encoders == 1, encoders, called)
    # A folder's encoder of Stable Diffusion 2 was saved without the layer that is not used.
    text = {
        role: replace(use, layer=-1) if use.normed else use
        for role, use in family.text.items()
        if role in parts
    }
    try:
        vae = parts["vae"].config if "vae" in parts else None
        native = denoiser.config.sample_size * (vae.factor if vae else family.factor)
        family = replace(
            family,
            text=text,
            native=native,
            zero_empty=bool(index.get("force_zeros_for_empty_prompt", family.zero_empty)),
            latent_channels=vae.latent_channels if vae else family.latent_channels,
            factor=vae.factor if vae else family.factor,
        )
        if scheduler:
            family, notes = _scheduled(family, scheduler), []
        family = _with_extra(family, extra)
    except (TypeError, ValueError, DarkroomError) as error:
        raise ModelError(f"{folder}: its settings cannot be used: {error}") from error
    return family, notes


def _called(folder: Path, index: Mapping[str, Any]) -> str:
    """What a folder is called: by itself, by who wrote it, by the hub's cache around it."""
    cached = folder.parents[1].name if folder.parent.name == "snapshots" else ""
    return f"{folder.name} {cached} {Path(str(index.get('_name_or_path', ''))).name}"


def _with_extra(family: Family, extra: Mapping[str, Any]) -> Family:
    """The family with what darkroom.json says."""
    return replace(
        family,
        native=int(extra.get("native_size", family.native)),
        preferences=Preferences(**{**family.preferences.to_dict(), **extra.get("preferences", {})}),
        preview=_rows(extra.get("preview")) or family.preview,
    )


def _scheduled(family: Family, config: Mapping[str, Any]) -> Family:
    """The family with what a scheduler_config.json says of noise and prediction, and of how to sample."""
    schedule = noise_schedule(config)
    default = "flow" if isinstance(schedule, FlowSchedule) else "epsilon"
    family = replace(family, process=process(config.get("prediction_type", default)), schedule=schedule)
    preferences = family.preferences
    if str(config.get("_class_name")) in ("LCMScheduler", "TCDScheduler"):
        scale = preferences.guidance if family.embeds_guidance else 1.0
        sampler = parse_sampler(str(config["_class_name"]))[0]
        preferences = replace(preferences, steps=4, guidance=scale, sampler=sampler, schedule="lcm")
    elif config.get("timestep_spacing") == "trailing" and not isinstance(schedule, FlowSchedule):
        preferences = replace(preferences, schedule="trailing")
    return replace(family, preferences=preferences)


def noise_schedule(config: Mapping[str, Any]) -> NoiseSchedule:
    """The noise schedule of a scheduler_config.json."""
    flow = str(config.get("_class_name", "")).startswith("FlowMatch") or config.get("use_flow_sigmas")
    if flow or config.get("prediction_type") == "flow_prediction":
        return FlowSchedule(float(config.get("flow_shift", config.get("shift", 1.0))))
    return Discrete(
        betas(
            config.get("beta_schedule", "scaled_linear"),
            float(config.get("beta_start", 0.00085)),
            float(config.get("beta_end", 0.012)),
            int(config.get("num_train_timesteps", 1000)),
        ),
        zero_terminal_snr=bool(config.get("rescale_betas_zero_snr", False)),
    )


# Single files


# Tensors of single files that no network needs, by what they are.
_LEFT_ALONE = {
    "averages of training": r"model_ema\.",
    "the noise schedule": r"(alphas|betas|log_one_minus|sqrt_|posterior_|logvar|lvlb_weights|denoiser\.|scale_factor)",
    "marks": r"(v_pred|ztsnr|edm_mean|edm_std|edm_vpred\.sigma_)",
    "position numbers": r".*\.(position_ids|attn_mask)$",
    "the scale of CLIP's training": r".*logit_scale$",
    "the unused last layer of OpenCLIP": r".*\.transformer\.resblocks\.\d+\.",
    "training state": r"(optimizer|lr_scheduler|loss|cond_stage_model\.(model\.)?visual|global_step)",
    "the image side of unCLIP": r"(noise_augmentor|embedder)\.",
    "the depth estimator": r"depth_model\.",
    "the upscaler's noise schedule": r"low_scale_model\.",
}


def _open_file(path: Path, others: Sequence[Path], opened: ExitStack) -> Source:
    files = [opened.enter_context(open_weights(each)) for each in (path, *others)]
    parts: dict[str, Part] = {}
    texts: list[tuple[Found, WeightsFile]] = []
    said = _said(files[0])
    for weights in files:
        for found in networks_in(_shapes(weights)):
            role = _FILE_ROLES[found.kind]
            if found.kind is CLIPText:
                texts.append((found, weights))
            else:
                parts.setdefault(role, _part(role, found, weights, said))
    texts.sort(key=lambda each: _rank(each[0], said))
    denoiser = next((parts[role] for role in DENOISERS if role in parts), None)
    if denoiser is None:
        raise ModelError(_not_whole(path, parts, texts))
    openclip = any(found.layout != HUGGING_FACE for found, _ in texts)
    family, notes = family_of(denoiser.config, openclip, len(texts), _evidence(denoiser))
    for role, (found, weights) in zip(family.text, texts, strict=False):
        parts[role] = _part(role, found, weights, said)
    family = _without_the_unused_layer(family, parts)
    if "vae" in parts and parts["vae"].kind is VAE and "vae" not in said:
        parts["vae"] = replace(parts["vae"], config=_scaled(parts["vae"].config, family))
    if isinstance(vae := parts.get("vae"), Part):
        family = replace(family, latent_channels=vae.config.latent_channels, factor=vae.config.factor)
    if family.largest is not None:
        family = replace(family, native=min(family.native, family.largest))
    family, notes = _as_said(family, notes, said)
    tokenizers = {role: Tokenizer.from_dict(each) for role, each in said.get("tokenizers", {}).items()}
    return Source(path, parts, family, tokenizers, notes, said.get("scheduler", {}), said.get("extra", {}))


SD2_LAYER = 23
"""The layer of OpenCLIP-H whose state Stable Diffusion 2 was trained on, of 24."""


def _without_the_unused_layer(family: Family, parts: Mapping[str, Part]) -> Family:
    """The family as its encoder is used in a file made from a folder: these have no layer after the one used."""
    text = {
        role: replace(use, layer=-1)
        if use.normed and role in parts and parts[role].config.num_hidden_layers == SD2_LAYER
        else use
        for role, use in family.text.items()
    }
    return replace(family, text=text)


DARKROOM = "darkroom"
"""The key of a single file's metadata under which `convert` keeps what such files have no place for: each component's
config.json, the scheduler's, darkroom.json's, how text is used, and vocabularies that are not CLIP's, as JSON."""


def _said(weights: WeightsFile) -> dict[str, Any]:
    """What a file that Darkroom wrote says of itself."""
    try:
        said = json.loads(weights.metadata.get(DARKROOM, "{}"))
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _as_said(family: Family, notes: list[str], said: Mapping[str, Any]) -> tuple[Family, list[str]]:
    if "scheduler" in said:
        family, notes = _scheduled(family, said["scheduler"]), []
    if "extra" in said:
        family = _with_extra(family, said["extra"])
    told = said.get("text", {})
    text = {
        role: replace(use, layer=layer) if (layer := told.get("layers", {}).get(role)) in (-1, -2) else use
        for role, use in family.text.items()
    }
    return replace(family, text=text, zero_empty=bool(told.get("zero_empty", family.zero_empty))), notes


_FILE_ROLES: Mapping[type[nn.Module], str] = {
    UNet: "unet",
    MMDiT: "transformer",
    VAE: "vae",
    TinyVAE: "vae",
    CLIPText: "text_encoder",
    CLIPVision: "image_encoder",
    T5Encoder: "text_encoder_3",
}


def _rank(found: Found, said: Mapping[str, Any]) -> tuple[int, int]:
    """CLIP's encoders in the order that a model takes them: as the file numbers them, else the smaller one first."""
    place = next((i for i, marks in enumerate(_NUMBERED) if any(m in found.prefix for m in marks)), 0)
    return place, 0 if said else found.config.hidden_size


_NUMBERED = (("embedders.0.", "clip_l."), ("embedders.1.", "clip_g."))


def _part(role: str, found: Found, weights: WeightsFile, said: Mapping[str, Any] | None = None) -> Part:
    """A network that was found, with the dimensions that its file states, else those of its shapes."""
    stated = (said or {}).get(role)
    try:
        config = found.config if stated is None else _READERS[found.kind](stated)
    except ModelError as error:
        raise ModelError(f"{weights.path}: the dimensions of its {role} make no sense: {error}") from error
    return Part(role, found.kind, config, weights, found.prefix, found.layout)


_READERS: Mapping[type[nn.Module], Any] = dict(_ROLES.values()) | {TinyVAE: configs.tiny_config}


def _shapes(weights: WeightsFile) -> dict[str, tuple[int, ...]]:
    return {name: entry.shape for name, entry in weights.entries.items()}


def _scaled(vae: VAEConfig, family: Family) -> VAEConfig:
    """How the family's latents are scaled, which no shape tells."""
    if vae.latent_channels == 16:
        return replace(vae, scaling_factor=1.5305, shift_factor=0.0609, sample_size=family.native)
    scaling = next((value for name, value in SCALING.items() if family.name.startswith(name)), 0.18215)
    return replace(vae, scaling_factor=scaling, sample_size=family.native)


def _evidence(part: Part) -> Evidence:
    """What a single file, and a configuration of the same name beside it, say besides shapes."""
    path, weights = part.weights.path, part.weights

    def read(name: str) -> Tensor | None:
        whole = part.prefix + name
        return weights.get(whole) if whole in weights.entries else None

    beside = ""
    for suffix in (".yaml", ".yml", ".json"):
        if (file := path.with_suffix(suffix)).is_file() and file.stat().st_size < 1 << 20:
            beside = file.read_text("utf-8", errors="replace")
            break
    said = {**weights.metadata, **{name: str(value) for name, value in weights.extra.items()}}
    return Evidence(said, beside, read, list(weights.entries), path.name)


def _not_whole(path: Path, parts: Mapping[str, Part], texts: Sequence[tuple[Found, WeightsFile]]) -> str:
    """Why a file without U-Net and MMDiT is no model, and what to do with it."""
    if "vae" in parts:
        return f"{path} is an autoencoder alone: give it as --vae beside a model"
    if texts or parts:
        return f"{path} holds {_listed(parts) or 'a text encoder'} alone: give it beside a model (--with)"
    return f"{path} holds none of the networks of Stable Diffusion: it is another kind of file"


def _listed(parts: Mapping[str, Part]) -> str:
    return ", ".join(parts)


def leftovers(source: Source, claimed: Mapping[Path, set[str]]) -> dict[str, list[str]]:
    """The tensors that no network claims, by the reason they are left alone.

    `claimed`: what the networks take, by file. Raises ModelError naming a tensor that there is no reason for.
    """
    found: dict[str, list[str]] = {}
    for weights in {part.weights.path: part.weights for part in source.parts.values()}.values():
        for name in weights.entries.keys() - claimed.get(weights.path, set()):
            reason = next((why for why, pattern in _LEFT_ALONE.items() if re.match(pattern, name)), None)
            if reason is None:
                raise ModelError(
                    f"{weights.path} holds {name}, which no network of {source.family.name} has: "
                    "it is another model's, or has been changed"
                )
            found.setdefault(reason, []).append(name)
    return found


# Names and JSON


_OLD_VAE_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def _today(name: str, kind: type[nn.Module]) -> str:
    """Today's name of a tensor in the Hugging Face layout: newer transformers drop `text_model.`, older autoencoders
    say `query`, T5's table of tokens has two names."""
    if kind is CLIPText and name.startswith(("embeddings.", "encoder.", "final_layer_norm.")):
        return f"text_model.{name}"
    if kind is CLIPVision and name.startswith("vision_model.vision_model."):
        return name.removeprefix("vision_model.")
    if kind is VAE and ".attentions." in name:
        return ".".join(_OLD_VAE_NAMES.get(word, word) for word in name.split("."))
    if kind is T5Encoder and name == "encoder.embed_tokens.weight":
        return "shared.weight"
    return name


def _computed(name: str) -> bool:
    """Whether a tensor may be missing because the network knows how to make it."""
    return name == "pos_embed.pos_embed"


def _rows(matrix: Any) -> tuple[tuple[float, ...], ...] | None:
    return None if matrix is None else tuple(tuple(float(x) for x in row) for row in matrix)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, or ModelError."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path} is missing: the model folder is incomplete") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} holds no JSON object")
    return value
