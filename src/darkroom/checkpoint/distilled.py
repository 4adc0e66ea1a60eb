"""How distilled models are run, told by what they are called: they look like any other model of their family.

Names are read as words ("TurboVisionXL_v4" holds Turbo, "turbocharged" does not), and what they deny is heard.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from darkroom.checkpoint.family import Family
from darkroom.checkpoint.preferences import Preferences
from darkroom.diffusion import FlowSchedule, process

_TRAILING = Preferences(guidance=1.0, sampler="euler", schedule="trailing")
_CONSISTENT = Preferences(steps=4, guidance=1.0, sampler="lcm", schedule="lcm")
# Merges of Turbo with other models, as their makers advise.
_TURBO_MERGE = Preferences(steps=6, guidance=2.0, sampler="dpmpp_sde", schedule="karras")


@dataclass(frozen=True)
class Distillation:
    """One way of distilling: the word in names that tells it, and how its models are run where they say no more."""

    name: str
    word: str
    preferences: Preferences


_DISTILLATIONS = (
    Distillation("Turbo", r"turbo", replace(_TRAILING, steps=1, sampler="euler_ancestral")),
    Distillation("Lightning", r"lightning", replace(_TRAILING, steps=4)),
    Distillation("Hyper-SD", r"hyper", replace(_TRAILING, steps=8)),
    Distillation("DMD", r"dmd2?", _CONSISTENT),
    Distillation("LCM", r"lcm", _CONSISTENT),
)
_WORDS = "|".join(each.word for each in _DISTILLATIONS)
_DENIALS = {"not", "no", "non", "un", "without", "anti", "pre"}
_DENIED_AFTER = {"free", "less", "removed"}
_ARTICLES = {"a", "an", "the", "for"}
# Words of names that say nothing of a merge: what Stability's own are made of.
_PLAIN = re.compile(
    r"sd|xl|sdxl|stable|diffusion|stability|stabilityai|ai|models|base|large|medium|model|unet|turbo|fp\d+|bf\d+"
    r"|v?\d+|one|step|steps|emaonly|pruned|non|ema|gguf|q\d|k|m|s"
)
# "Hyper" is a word of its own in names ("hyper realistic"): it is the distillation where nothing but this follows.
_AFTER_HYPER = re.compile(r"sd\w*|xl|v?\d(?!d\b)\w*|steps?|cfg|fp\d+|bf\d+|unet|baked\w*|vae")
# And so is "lightning".
_AFTER_LIGHTNING = re.compile(r"strikes?|bolts?|storms?|style|effects?|mage|art")


def with_speed(family: Family, called: Iterable[str]) -> tuple[Family, list[str]]:
    """The family with the steps and so on that suit a distilled model, if one of the names that a model has says that
    it is one; and a note that says so. Networks that are told the guidance scale tell it themselves."""
    if family.embeds_guidance:
        return family, []
    for name in called:
        words = words_of(name)
        for each in _DISTILLATIONS:
            if any(_tells(each, words, i) for i in range(len(words))):
                return _fast(family, each, words)
    return family, []


# Names that say nothing of what is inside: the folder's does.
_BARE = re.compile(r"(diffusion_pytorch_|pytorch_)?model(\.\w+)?|unet|transformer")


def names_of(path: Path) -> list[str]:
    """What a file or folder is called: by itself, by the folders around it where that says nothing, and by the hub's
    repository in whose cache it lies."""
    own, around = path.stem if path.is_file() else path.name, [each.name for each in path.parents][:4]
    names = [own, *around[:2]] if _BARE.fullmatch(own) else [own]
    if len(names) > 1 and not _BARE.fullmatch(names[1]):
        names.pop()
    return names + [name.rpartition("--")[2] for name in around if name.startswith("models--")]


def words_of(name: str) -> list[str]:
    """The words of a name in lower case: between signs, from capitals on, and what the name of a distillation is tacked
    on to ("v21TurboDPMSDE", "sdxlturbo")."""
    apart = re.sub(
        r"(?<=[a-z\d])(?=[A-Z][a-z]{2})|(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})", " ", name
    )
    apart = re.sub(r"(?i)(?<=\d)(?=steps?(?![a-z]))", " ", apart)
    apart = re.sub(rf"(?i)(?<=\d)(?=({_WORDS})(?![a-z]))", " ", apart)
    words = " ".join(re.findall(r"[^\W_]+", apart)).lower()
    words = re.sub(r"\bturbovision", "turbo vision", words)
    words = re.sub(rf"\b(sd|xl|sdxl|v\d+|\w+xl)({_WORDS})", r"\1 \2", words)
    return re.sub(rf"\b({_WORDS})(sd\w*|xl|v?\d\w*)\b", r"\1 \2", words).split()


def _tells(each: Distillation, words: Sequence[str], at: int) -> bool:
    """Whether the word at a place is that of a distillation, and is meant."""
    if not re.fullmatch(each.word, words[at]):
        return False
    before, after = (
        [word for word in words[:at] if word not in _ARTICLES][-1:],
        "".join(words[at + 1 : at + 2]),
    )
    if _DENIALS & {*before} or after in _DENIED_AFTER:
        return False
    if each.word == "lightning":
        return _AFTER_LIGHTNING.fullmatch(after) is None
    return each.word != "hyper" or not after or _AFTER_HYPER.fullmatch(after) is not None


def _fast(family: Family, each: Distillation, words: Sequence[str]) -> tuple[Family, list[str]]:
    own = all(_PLAIN.fullmatch(word) for word in words)
    preferences = each.preferences
    if isinstance(family.schedule, FlowSchedule):
        preferences = replace(family.preferences, steps=4 if each.name != "Hyper-SD" else 8, guidance=1.0)
    elif each.name == "Turbo" and not own:
        preferences = _TURBO_MERGE
    if each.name == "Hyper-SD" and "cfg" in words:
        preferences = replace(preferences, guidance=5.0)
    if steps := _steps(words):
        preferences = replace(preferences, steps=steps)
    if each.name == "Lightning" and "x0" in words:  # Its network for one step predicts the picture itself.
        family = replace(family, process=process("sample"))
    preferences = replace(preferences, second_strength=family.preferences.second_strength)
    guidance = "without guidance" if preferences.guidance == 1 else f"guidance {preferences.guidance:g}"
    note = (
        f"its name says that it is distilled ({each.name}): {preferences.steps} "
        f"step{'s' * (preferences.steps != 1)}, {guidance}, unless you say otherwise"
    )
    return replace(family, preferences=preferences), [note]


_STEP = ("step", "steps")
_NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight")


def _steps(words: Sequence[str]) -> int | None:
    """How many steps a name speaks of: "8 step", "sdxl1 step", "two step", "steps 8", "hyper 4s"."""
    for one, other in pairwise(words):
        if other in _STEP:
            count = one
        elif one in _STEP:
            count = other
        elif re.fullmatch(_WORDS, one) and re.fullmatch(r"\d+s", other):
            count = other[:-1]
        else:
            continue
        digits = re.search(r"\d+$", count)
        found = int(digits[0]) if digits else _NUMBERS.index(count) + 1 if count in _NUMBERS else 0
        if 1 <= found <= 50:
            return found
    return None
