"""How another program says that it made a picture, as a request and a model."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from darkroom.checkpoint.families import SDXL
from darkroom.checkpoint.family import PICTURE, Family
from darkroom.diffusion import parse_sampler, parse_schedule, points_for, sampler_info
from darkroom.errors import InvalidRequest, ModelError
from darkroom.generation import Request
from darkroom.generation.infotext import UPSCALERS
from darkroom.generation.parts import MAX_SIDE, XL
from darkroom.generation.request import SETTINGS, flattened
from darkroom.language.tags import KINDS, TAG, Tag, parse_tag
from darkroom.library.locate import OF_A_VAE, OF_PARTS
from darkroom.loading import Loading
from darkroom.recipes.files import Named, here, other_file
from darkroom.recipes.plain import shown

_SHOWN, _REASON = 100, 200  # Characters of a value, and of a reason.
_MOST = 100  # Lines of what is lost.
_LIBRARY = {"lora": "lora", "hypernet": "hypernetwork"}
SCHEDULES_ELSEWHERE = {
    "align your steps 11": "align_your_steps",
    "ays sd15": "align_your_steps:table=sd1",
    "ays sdxl": "align_your_steps:table=sdxl",
    "beta57": "beta:alpha=0.5,beta=0.7",
    "discrete": "normal",
}
"""What other programs call noise schedules, beside the names that are known here."""
_XL = tuple(flattened({"xl": XL()}))


_WAYS = {label.lower(): way for way, label in UPSCALERS.items()} | {"none": "lanczos"}
_UPSCALERS = {
    "r-esrgan 4x+": "RealESRGAN_x4plus",
    "r-esrgan 4x+ anime6b": "RealESRGAN_x4plus_anime_6B",
    "r-esrgan 2x+": "RealESRGAN_x2plus",
    "r-esrgan general 4xv3": "realesr-general-x4v3",
    "r-esrgan general wdn 4xv3": "realesr-general-wdn-x4v3",
    "r-esrgan animevideo": "realesr-animevideov3",
}
"""The files of upscalers that A1111 has under names of its own (`modules/realesrgan_model.py`)."""


def upscaler_file(name: str) -> Named:
    """The file of an upscaler that A1111 calls so."""
    return Named.of(_UPSCALERS.get(name.lower(), name))


class Detailer(NamedTuple):
    """What was drawn over in a finished picture: by what it was found, of which the file says as `what`, with which
    options of `darkroom.generation.details`, and what it was told."""

    what: str
    named: Named
    options: tuple[str, ...]
    prompt: str = ""
    negative: str = ""


@dataclass
class Recipe:
    """What a picture's file says of its making.

    program: which made it, and its version; settings: of a request, by name; model, vae, refiner, others: the files
    that it names; options: what a model is loaded with besides; adapters: LoRAs that stand in no prompt; hashes: the
    first digits of those that do, by name; embeddings: those that its prompts name; layer, empty_is_text: how the
    program reads prompts, see `request`; edit: the settings of a picture that it began with; upscaler: the network by
    which it was made larger; detailers: what of it was drawn over; lost: what cannot be honoured, a line each.
    `loading` and `request` add to it what they find.
    """

    program: str
    settings: dict[str, Any] = field(default_factory=dict)
    model: Named | None = None
    vae: Named | None = None
    refiner: Named | None = None
    others: list[Named] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    adapters: list[tuple[Named, Tag]] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)
    embeddings: list[Named] = field(default_factory=list)
    layer: str = "sd1"
    empty_is_text: bool = False
    edit: dict[str, Any] = field(default_factory=dict)
    upscaler: Named | None = None
    detailers: list[Detailer] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    _nearly: set[str] = field(default_factory=set)
    _of_the_edit: set[str] = field(default_factory=set)
    _enlarged_as: str = ""

    def __post_init__(self) -> None:
        self.program = shown(self.program)

    def lose(self, what: str, value: object = None, why: str = "", limit: int = _SHOWN) -> None:
        """Note what cannot be honoured, once, in a line of so many characters beside the reason."""
        text = shown(what if value is None else f"{what}: {value}", limit)
        line = f"{text} ({shown(why, _REASON)})" if why else text
        if len(self.lost) > _MOST:
            return
        if len(self.lost) == _MOST:
            line = "more of that kind"
        if line not in self.lost:
            self.lost.append(line)

    def nearly(self, what: str, value: object = None, why: str = "") -> None:
        """Note what is honoured, if a little otherwise."""
        before = {*self.lost}
        self.lose(what, value, why)
        self._nearly |= {*self.lost} - before

    def check(self) -> None:
        """Raises InvalidRequest for the first thing that cannot be honoured, for those who rather have no picture than
        another. The picture that it began with is theirs to give."""
        for line in self.lost:
            if line not in self._nearly | self._of_the_edit:
                raise InvalidRequest(line)

    def begin(self, strength: Any, counted: str, what: str, **settings: Any) -> None:
        """Note that it was made from another picture, which its file does not hold: with such a `strength`, `counted`
        as one of `STRENGTHS`, which the file says as `what`."""
        self.edit = {"strength_as": counted, "fit": "stretch"}
        for name, value in {"strength": strength, **settings}.items():
            with suppress(InvalidRequest):
                self.edit[name] = SETTINGS[name].metadata["check"](name, value)
        before = {*self.lost}
        self.lose(
            what, strength, "made from another picture, which its file does not hold: give it as `image=`"
        )
        self._of_the_edit |= {*self.lost} - before

    def draw_on(self, image: str | Path) -> None:
        """Have the request begin with the picture that this one began with. Raises InvalidRequest where its file says
        of none."""
        if not self.edit:
            raise InvalidRequest(
                f"image is {image}, but the picture's file says of none that it began with: leave it out"
            )
        self.settings |= {**self.edit, "image": image}
        self.lost = [line for line in self.lost if line not in self._of_the_edit]

    def put(self, name: str, value: Any, said: str | None = None) -> None:
        """A setting of the request, unless it can't be that; `said`: what the file calls it."""
        if value is None:
            return
        if name.endswith("seed") and value == -1:
            self.lose(said or name, why="which one was drawn is not said")
            return
        try:
            self.settings[name] = SETTINGS[name].metadata["check"](name, value)
        except InvalidRequest as error:
            self.lose(said or name, why=str(error))

    def put_size(self, names: tuple[str, str], size: tuple[int, int]) -> None:
        """Two settings that go together: both, or none."""
        try:
            found = {
                name: SETTINGS[name].metadata["check"](name, side)
                for name, side in zip(names, size, strict=True)
            }
        except InvalidRequest as error:
            self.lose(f"{size[0]}x{size[1]}", why=str(error))
        else:
            self.settings |= found

    def put_sampler(
        self,
        name: str,
        schedule: str | None = None,
        options: Mapping[str, Any] | None = None,
        bend: Mapping[str, Any] | None = None,
        whose: str = "",
    ) -> None:
        """The sampler of that name with those of its `options` that it has here, and its noise schedule, None the
        sampler's own, with the options `bend`; `whose`: "second_" for the second pass's."""
        try:
            text, joined = parse_sampler(name)
        except InvalidRequest:
            self.lose("sampler", name, "there is none of that name here: the model's own takes its place")
        else:
            info = sampler_info(text)
            own = {option: value for option, value in (options or {}).items() if option in info.options}
            self.settings[f"{whose}sampler"] = self._with_options(
                text, own, lambda each: parse_sampler(each)[0]
            )
            self.settings[f"{whose}schedule"] = info.schedule
            schedule = schedule or joined
        if schedule:
            self.put_schedule(schedule, bend, whose)

    def put_schedule(self, name: str, options: Mapping[str, Any] | None = None, whose: str = "") -> None:
        """A noise schedule with those options that it has here; one that is not known here is lost."""
        try:
            text = parse_schedule(SCHEDULES_ELSEWHERE.get(name.lower(), name))
        except InvalidRequest:
            why = "there is none of that name here: the sampler's own takes its place"
            self.lose("noise schedule", name, why)
        else:
            self.settings[f"{whose}schedule"] = text and self._with_options(
                text, options or {}, parse_schedule
            )

    def put_upscaler(self, name: str, what: str) -> None:
        """By what it was made larger, as A1111 calls it or as its file is called; `what`: where the file says so."""
        if (way := _WAYS.get(name.lower())) is not None:
            self.put("upscaler", way)
        else:
            self.upscaler = upscaler_file(name)
            self._enlarged_as = what

    def put_tiles(self, what: str, sides: Sequence[object], method: object) -> None:
        """The tiles that `what` says the picture was drawn in, as extensions of A1111 and ComfyUI do; sides: width,
        height and overlap in pixels, or what stands there."""
        width, height, overlap = sides
        wide, high, shared = (each if type(each) is int else -1 for each in sides)
        blend = {"MultiDiffusion": "average", "Mixture of Diffusers": "gaussian"}.get(str(method))
        if blend is None or not 64 <= wide <= MAX_SIDE or not 0 <= shared < wide or wide % 8 or shared % 8:
            self.lose(what, f"{method}, tiles of {width}x{height} that share {overlap}")
            return
        self.put("tile", wide)
        self.put("tile_overlap", shared)
        self.put("tile_blend", blend)
        if high != wide:
            self.lose(what, f"tiles of {width}x{height}", "they are square here")

    def _with_options(self, text: str, options: Mapping[str, Any], parse: Callable[[str], str | None]) -> str:
        """A sampler or a schedule with options, each that it cannot have lost."""
        name = text
        for option, value in options.items():
            try:
                text = parse(f"{text}{',' if ':' in text else ':'}{option}={value}") or text
            except InvalidRequest as error:
                self.lose(f"{option} of {name}", value, str(error))
        return text

    def put_switch(self, step: int) -> None:
        """Where a refiner takes over, said as a step: between that and the one before, as a share of the noise."""
        settings, schedule = self.settings, SDXL.schedule
        try:
            points = points_for(
                schedule, settings["steps"], settings.get("sampler", "euler"), settings.get("schedule")
            )
            cut = (points[step - 1].time + points[step].time) / 2
        except (InvalidRequest, KeyError, IndexError):
            self.lose("the refiner's first step", step)
            return
        count = schedule.last - schedule.first + 1
        self.put("refiner_switch", round(1 - cut / count, 6))

    def adapt(
        self, named: Named, strength: float, text_strength: float | None = None, kind: str = "lora"
    ) -> None:
        """An adapter beside the prompt."""
        self.adapters.append((named, Tag(named.name, strength, text_strength, kind=kind)))

    def guide(self, text: str) -> None:
        """One more way of guiding."""
        before = self.settings.get("guides", ())
        self.put("guides", (*before, text), text)

    def loading(self, **instead: Any) -> Loading:
        """What the model is loaded with: the files named as they are found here. `instead`: what takes the place of
        those. Raises ModelError where the model is not here, InvalidRequest where none is named."""
        found: dict[str, Any] = {**self.options}
        for part, named, kinds in (("vae", self.vae, OF_A_VAE), ("refiner", self.refiner, ("model",))):
            if named is None or part in instead:
                continue
            if (name := here(named, *kinds)) is None:
                self.lose(part, named, "it is not here")
            else:
                found[part] = name
        others = [(named, here(named, *OF_PARTS)) for named in self.others]
        for named, name in others:
            if name is None:
                self.lose("text encoder", named, "it is not here: the model's own takes its place")
        if names := [name for _, name in others if name is not None]:
            found["others"] = names
        found |= instead
        if "refiner" not in found:
            self.settings.pop("refiner_switch", None)
        if "model" not in found:
            found["model"] = self._model()
        return Loading(**found).checked()

    def _model(self) -> str:
        if self.model is None:
            raise InvalidRequest("the picture's file does not say which model made it: give `model=`")
        if (name := here(self.model, "model")) is None:
            raise ModelError(
                f"the picture was made with the model {self.model}, which is not here: add it to the library "
                "(`darkroom models add FILE`), or give the model to use as `model=`"
            )
        if why := other_file(self.model, name, "model"):
            self.lose("model", self.model, why)
        return name

    def request(self, family: Family | None = None) -> Request:
        """The request, for a model of that family as far as that matters.

        `clip_skip` counts here from the layer that the model was trained with. Programs that count otherwise do so by
        `layer`: "sd1" only in Stable Diffusion 1, in others it means nothing; "last" from the encoder's last layer.
        `empty_is_text`: an empty negative prompt is encoded as any other. Raises InvalidRequest for what does not go
        together.
        """
        settings = dict(self.settings)
        tags = settings.get("dialect", "a1111") in ("a1111", "plain")
        settings.setdefault("prompt", "")
        if self.upscaler is not None:
            settings["upscaler"] = here(self.upscaler, "upscaler") or "lanczos"
            if settings["upscaler"] == "lanczos":
                why = "it is not here, Lanczos takes its place: `darkroom models add FILE` adds one"
                self.lose(self._enlarged_as, self.upscaler, why)
        self._put_details(settings, tags)
        prompts = ("prompt", "negative", "second_prompt", "second_negative")
        for name in [name for name in settings if name.startswith(prompts)]:
            if isinstance(settings[name], str):
                settings[name] = self._with_tags(settings[name], tags)
        for named in self.embeddings:
            self._name_embedding(settings, named)
        if family is not None:
            if not family.sizes:
                settings = {name: value for name, value in settings.items() if name not in _XL}
            self._count_layers(settings, family)
            if family.needs != PICTURE and (scale := settings.pop("image_guidance", None)) is not None:
                self.lose("guidance by the picture", f"{scale:g}", f"{family.name} is not shown it")
            if settings.get("schedule") == "align_your_steps" and family.sizes:
                settings["schedule"] = "align_your_steps:table=sdxl"
            if self.empty_is_text and family.zero_empty and not settings.get("negative"):
                settings["negative"] = " "
            if self.empty_is_text and family.zero_empty and settings.get("second_negative") == "":
                settings["second_negative"] = " "
        if adapters := [text for each in self.adapters if (text := self._adapter(*each))]:
            settings["adapters"] = tuple(adapters)
        return Request(**settings).checked()

    def _put_details(self, settings: dict[str, Any], tags: bool) -> None:
        """What was drawn over in the finished picture, as far as what found it is here."""
        found = [(here(each.named, "detector"), each) for each in self.detailers]
        for name, each in found:
            if name is None:
                why = "it is not here: put its file into $DARKROOM_MODELS/detectors"
                self.lose(each.what, each.named, why)
        there = [(name, each) for name, each in found if name is not None]
        if there:
            settings["details"] = [":".join([name, *each.options]) for name, each in there]
            settings["detail_prompts"] = [self._with_tags(each.prompt, tags) for _, each in there]
            settings["detail_negatives"] = [each.negative for _, each in there]

    def _count_layers(self, settings: dict[str, Any], family: Family) -> None:
        skip = settings.get("clip_skip", 1)
        usual = max(-use.layer for use in family.text.values()) if family.text else 1
        if self.layer == "last" and "clip_skip" in settings:
            settings["clip_skip"] = max(skip - usual + 1, 1)
            if skip < usual:
                self.lose(
                    "CLIP layer", -skip, f"{family.name} is read from layer {-usual} here, at the latest"
                )
        elif self.layer == "sd1" and usual != 1:
            settings.pop("clip_skip", None)

    def _name_embedding(self, settings: dict[str, Any], named: Named) -> None:
        """ComfyUI's "embedding:name.pt" as it is called here, left out where it is not here, as there."""
        own, found = re.compile(rf"embedding:{re.escape(named.name)}(?![\w.\-])"), here(named, "embedding")
        explicit = False
        for name, text in settings.items():
            if isinstance(text, str) and own.search(text):
                settings[name] = own.sub(lambda _: f"embedding:{found}" if found else "", text)
                explicit = True
        if found is None:
            why = "left out" if explicit else "its name is read as words"
            self.lose(f"embedding {named}", why=f"it is not here: {why}")

    def _with_tags(self, prompt: str, tags: bool) -> str:
        """A prompt whose tags name what is here; others are taken out, and all where its program reads no `tags`."""

        def known(match: re.Match[str]) -> str:
            if not tags:
                self.lose(match[0], why=f"words to {self.program}, a LoRA here: left out")
                return ""
            try:
                tag = parse_tag(match[2], match[1])
            except InvalidRequest as error:
                self.lose(match[0], why=str(error))
                return ""
            text = self._adapter(Named(tag.name, self.hashes.get(tag.name, "")), tag)
            return f"<{text if text.partition(':')[0] in KINDS else f'lora:{text}'}>" if text else ""

        return TAG.sub(known, prompt)

    def _adapter(self, named: Named, tag: Tag) -> str | None:
        """An adapter as a request names it; None where it is not here."""
        kind, word = _LIBRARY[tag.kind], "LoRA" if tag.kind == "lora" else "hypernetwork"
        if (name := here(named, kind)) is None:
            self.lose(f"{word} {named}", why="it is not here: `darkroom models add FILE` adds one")
            return None
        if why := other_file(named, name, kind):
            self.lose(f"{word} {named}", why=why)
        return str(replace(tag, name=name))

    def to_dict(self) -> dict[str, Any]:
        """Plain data: what `darkroom info` prints."""
        files = {
            "model": self.model and str(self.model),
            "vae": self.vae and str(self.vae),
            "refiner": self.refiner and str(self.refiner),
            "others": [str(each) for each in self.others],
            **self.options,
        }
        request = self.request()
        return {
            "program": self.program,
            "request": request.to_dict(),
            "model": {name: value for name, value in files.items() if value not in (None, [])},
            "lost": list(self.lost),
        }
