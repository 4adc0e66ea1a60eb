"""Ways of guiding by name, as a request gives them: "pag:scale=3,stop=0.8"."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from darkroom.diffusion.guidance.classifier_free import ClassifierFree
from darkroom.diffusion.guidance.interval import Interval, OffSteps
from darkroom.diffusion.guidance.pictured import TowardsPicture
from darkroom.diffusion.guidance.projected import Projected
from darkroom.diffusion.guidance.question import Guidance, Without
from darkroom.diffusion.guidance.rescaled import Rescaled
from darkroom.diffusion.guidance.thresholded import Thresholded
from darkroom.diffusion.guidance.worse import AwayFromWorse
from darkroom.diffusion.options import Option, Within, parse_options
from darkroom.errors import InvalidRequest, nearest


@dataclass(frozen=True)
class GuideInfo:
    """A way of guiding as users know it."""

    name: str
    label: str
    description: str
    options: Mapping[str, Option]


class Guide(NamedTuple):
    """A way of guiding that a request asks for, every option of it."""

    name: str
    options: Mapping[str, Any]


_SHARE = Within(0, 1)


def _part(start: float = 0.0, stop: float = 1.0) -> Mapping[str, Option]:
    return {"start": Option(start, _SHARE), "stop": Option(stop, _SHARE)}


GUIDES: Mapping[str, GuideInfo] = {
    each.name: each
    for each in (
        GuideInfo("interval", "guidance interval", "Guide on the steps from start up to stop only.", _part()),
        GuideInfo(
            "off_steps",
            "negative guidance off-steps",
            "Leave the negative prompt out of every second step (every: of each) once sigma is under `below`.",
            {"below": Option(1.0), "every": Option(False)},
        ),
        GuideInfo(
            "apg",
            "adaptive projected guidance",
            "High guidance without burnt colours: without (eta) what guidance adds along the picture itself.",
            {"eta": Option(0.0), "threshold": Option(15.0), "momentum": Option(-0.5)},
        ),
        GuideInfo(
            "threshold",
            "dynamic thresholding",
            "High guidance in the value range of a lower scale (mimic).",
            {
                "mimic": Option(7.0),
                "percentile": Option(1.0, _SHARE),
                "measure": Option("range", words=("range", "spread")),
                "centre": Option("mean", words=("mean", "zero")),
                "channels": Option(True),
                "share": Option(1.0, _SHARE),
            },
        ),
        GuideInfo(
            "pag",
            "perturbed-attention guidance",
            "Away from what the network makes without the self-attention of some layers (joined by +).",
            {"scale": Option(3.0), "layers": Option("mid"), **_part()},
        ),
        GuideInfo(
            "slg",
            "skip-layer guidance",
            "Stable Diffusion 3: away from what the network makes without some blocks (joined by +).",
            {"scale": Option(2.8), "blocks": Option("7+8+9"), **_part(0.01, 0.2)},
        ),
        GuideInfo(
            "freeu",
            "FreeU",
            "U-Nets: more of what the way up knows (b1, b2), less of what the skip connections add (s1, s2).",
            {name: Option(value) for name, value in {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2}.items()},
        ),
    )
}


def parse_guide(text: str) -> Guide:
    """A way of guiding: its name, and after a colon the options that are not to be as they are, as in
    "pag:scale=3,stop=0.8". Raises InvalidRequest with the nearest name, or what a value has to be."""
    name, _, rest = text.strip().partition(":")
    if name not in GUIDES:
        raise InvalidRequest(f"unknown way of guiding {name!r}: {nearest(name, GUIDES)}")
    known = GUIDES[name].options
    options = {option: each.default for option, each in known.items()} | parse_options(name, known, rest)
    if "blocks" in options:
        _numbers(options["blocks"])
    return Guide(name, options)


def parse_guides(texts: Iterable[str]) -> tuple[Guide, ...]:
    """Several ways of guiding, each at most once. Raises InvalidRequest as `parse_guide` does."""
    found = tuple(map(parse_guide, texts))
    names = [guide.name for guide in found]
    for name in names:
        if names.count(name) > 1:
            raise InvalidRequest(
                f"{name} is asked for {names.count(name)} times: give all its options at once"
            )
    return found


def guidance_from(
    scale: float,
    rescale: float = 0.0,
    weights: tuple[float, ...] = (1.0,),
    guides: Iterable[Guide] = (),
    picture: float = 1.0,
) -> Guidance:
    """All that a request asks of guidance, one inside the other: classifier-free or projected, thresholded, off on some
    steps, away from what is worse, towards the `picture` that the network sees, rescaled."""
    asked = {guide.name: guide.options for guide in guides}
    plain, outside = ClassifierFree(scale, weights), ClassifierFree(1.0, weights)
    guidance: Guidance = Projected(scale, weights, **asked["apg"]) if "apg" in asked else plain
    for name, around in _AROUND.items():
        if name in asked:
            guidance = around(guidance, outside, asked[name])
    if picture != 1:
        guidance = TowardsPicture(guidance, picture)
    return Rescaled(guidance, rescale) if rescale else guidance


def _thresholded(inner: Guidance, outside: ClassifierFree, options: Mapping[str, Any]) -> Guidance:
    others = {name: value for name, value in options.items() if name != "mimic"}
    return Thresholded(inner, ClassifierFree(options["mimic"], outside.weights), **others)


def _perturbed(inner: Guidance, outside: ClassifierFree, options: Mapping[str, Any]) -> Guidance:
    without = Without("attention", tuple(options["layers"].split("+")))
    return AwayFromWorse(inner, "perturbed", options["scale"], without, options["start"], options["stop"])


def _skipped(inner: Guidance, outside: ClassifierFree, options: Mapping[str, Any]) -> Guidance:
    without = Without("blocks", _numbers(options["blocks"]))
    return AwayFromWorse(inner, "skipped", options["scale"], without, options["start"], options["stop"])


_AROUND: Mapping[str, Callable[[Guidance, ClassifierFree, Mapping[str, Any]], Guidance]] = {
    "threshold": _thresholded,
    "interval": lambda inner, outside, options: Interval(inner, outside, **options),
    "off_steps": lambda inner, outside, options: OffSteps(inner, outside, **options),
    "pag": _perturbed,
    "slg": _skipped,
}


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(each) for each in text.split("+"))
    except ValueError:
        raise InvalidRequest(f"slg:blocks is {text!r}: give numbers joined by +, such as 7+8+9") from None
