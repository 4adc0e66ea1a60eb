"""How distilled models are run, told by what they are called: they look like any other model of their family.

Names are read as words ("TurboVisionXL_v4" holds Turbo, "turbocharged" does not), and what they deny is heard.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from darkroom.checkpoint.family import Family, Preferences
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
_DENIALS = {"not", "no", "non", "un", "without", "anti"}
# Words of names that say nothing of a merge: what Stability's own are made of.
_PLAIN = re.compile(
    r"sd|xl|sdxl|stable|diffusion|stability|stabilityai|ai|models|base|large|medium|model|unet|turbo|fp\d+|bf\d+"
    r"|v?\d+|one|step|steps|emaonly|pruned|non|ema|gguf|q\d|k|m|s"
)
# "Hyper" is a word of its own in names ("hyper realistic"): it is the distillation where nothing but this follows.
_AFTER_HYPER = re.compile(r"sd\w*|xl|v?\d\w*|steps?|cfg|fp\d+|bf\d+|unet|baked\w*|vae")


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


def words_of(name: str) -> list[str]:
    """The words of a name in lower case: between signs, from capitals on, and what the name of a distillation is tacked
    on to ("v21TurboDPMSDE", "sdxlturbo")."""
    apart = re.sub(
        r"(?<=[a-z\d])(?=[A-Z][a-z]{2})|(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})", " ", name
    )
    apart = re.sub(r"(?i)(?<=\d)(?=steps?(?![a-z]))", " ", apart)
    words = " ".join(re.findall(r"[^\W_]+", apart)).lower()
    words = re.sub(rf"\b(sd|xl|sdxl|v\d+|\w+xl)({_WORDS})", r"\1 \2", words)
    return re.sub(rf"\b({_WORDS})(sd\w*|xl|v?\d\w*)\b", r"\1 \2", words).split()


def _tells(each: Distillation, words: Sequence[str], at: int) -> bool:
    """Whether the word at a place is that of a distillation, and is meant."""
    if not re.fullmatch(each.word, words[at]):
        return False
    before, after = words[at - 1] if at else "", words[at + 1] if at + 1 < len(words) else ""
    if before in _DENIALS or after == "free":
        return False
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


def _steps(words: Sequence[str]) -> int | None:
    """How many steps a name speaks of."""
    for count, word in pairwise(words):
        if word in ("step", "steps") and (count == "one" or (count.isdecimal() and 1 <= int(count) <= 50)):
            return 1 if count == "one" else int(count)
    return None
