from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import replace

import numpy as np

from darkroom.world import (
    COLOURS,
    KINDS,
    PLACES,
    RELATIONS,
    STYLES,
    TIMES,
    WEATHERS,
    Group,
    Scene,
    caption,
    holds,
    layout,
    sample_scene,
    words,
)

# What each word claims. Words of places, times and weathers that are also said of something else
# ("night sky", "sky" in "a clear sky") are checked by whole phrases instead.
_KINDS = {form: kind for kind, forms in words.KIND_WORDS.items() for pair in forms for form in pair}
_COLOURS = {form: colour for colour, forms in words.COLOUR_WORDS.items() for form in forms}
_NUMBERS = {form: number for number, forms in words.NUMBER_WORDS.items() for form in forms}


def said(text: str, forms: dict[str, object]) -> list[tuple[int, object]]:
    """Where which meaning is said, longest forms first so that "lighthouse" is not "house"."""
    found = []
    lower = text.lower()
    for form in sorted(forms, key=len, reverse=True):
        for match in re.finditer(rf"(?<![\w-]){re.escape(form)}(?![\w-])", lower):
            found.append((match.start(), forms[form]))
            lower = lower[: match.start()] + "_" * len(form) + lower[match.end() :]
    return sorted(found, key=lambda pair: pair[0])


def without_setting(text: str) -> str:
    """The caption with the phrases about the setting taken out, which name trees, skies and colours too."""
    for phrase in (
        r"(white|golden|pink|rosy) clouds",
        r"(green|grassy) field",
        r"blue (sea|ocean)",
    ):
        text = re.sub(phrase, "~", text)
    return text


def test_captions_never_name_what_is_not_there() -> None:
    rng = random.Random(0)
    for _ in range(2500):
        scene = sample_scene(rng, "any")
        text = caption(scene, rng)
        bare = without_setting(text)
        kinds = Counter(meaning for _, meaning in said(bare, _KINDS))
        wanted = Counter(group.kind for group in scene.groups)
        assert kinds == wanted, (text, scene)
        colours = [meaning for _, meaning in said(bare, _COLOURS)]
        assert set(colours) <= {group.colour for group in scene.groups}, (text, scene)
        assert len(colours) in (0, len(scene.groups)), (text, scene)


def test_colours_and_numbers_belong_to_their_things() -> None:
    rng = random.Random(1)
    for _ in range(2500):
        scene = sample_scene(rng, "any", mix={"single": 1, "counting": 1, "two": 1, "position": 1})
        text = without_setting(caption(scene, rng))
        nouns = said(text, _KINDS)
        start = 0
        claims = []
        for at, kind in nouns:
            before = text[start:at]
            colours = [meaning for _, meaning in said(before, _COLOURS)]
            numbers = [meaning for _, meaning in said(before, _NUMBERS)]
            claims.append((kind, colours[-1] if colours else None, numbers[-1] if numbers else 1))
            start = at
        true = {(g.kind, g.colour, g.count) for g in scene.groups} | {
            (g.kind, None, g.count) for g in scene.groups
        }
        assert set(claims) <= true, (text, scene)


def test_relations_are_said_the_right_way_round() -> None:
    phrases = {form: relation for relation, forms in words.RELATION_PHRASES.items() for form in forms}
    inverses = {
        form.format(its=its, it=it): relation
        for relation, forms in words.INVERSE_PHRASES.items()
        for form in forms
        for its, it in (("its", "it"), ("their", "them"))
    }
    rng = random.Random(2)
    seen: Counter[str] = Counter()
    for _ in range(2000):
        scene = sample_scene(rng, "any", mix={"position": 1})
        text = without_setting(caption(scene, rng))
        (a_at, a), (b_at, b) = said(text, _KINDS)
        boxes = {}
        for group, box in zip(scene.groups, (layout(scene)[0], layout(scene)[-1]), strict=True):
            boxes[group.kind, group.colour] = box
        if a == b:
            continue
        first, second = (next(box for (kind, _), box in boxes.items() if kind == name) for name in (a, b))
        if " with " in text[a_at:b_at]:
            found = said(text[b_at:], inverses)
            assert found, text
            assert holds(second, str(found[0][1]), first), (text, scene)
        else:
            found = said(text[a_at:b_at], phrases)
            assert found, text
            assert holds(first, str(found[0][1]), second), (text, scene)
        seen[str(found[0][1])] += 1
    assert all(seen[relation] > 100 for relation in RELATIONS)


def test_settings_are_never_false() -> None:
    forms = {
        "style": {
            f: n
            for n in STYLES
            for f in (*words.STYLE_TAGS[n], *words.STYLE_PREFIXES[n], *words.STYLE_PHRASES[n])
        },
        "time": {f: n for n in TIMES for f in words.TIME_PHRASES[n]},
        "weather": {
            f: n
            for n in WEATHERS
            for f in (*words.WEATHER_PHRASES[n], *words.WINDOW_PHRASES[n])
            if "{" not in f
        },
    }
    forms["weather"]["under a cloudy sky"] = "cloudy"
    rng = random.Random(3)
    for _ in range(2500):
        scene = sample_scene(rng, "any")
        text = caption(scene, rng)
        for name, meanings in forms.items():
            assert {meaning for _, meaning in said(text, meanings)} <= {getattr(scene, name)}, (text, scene)
        for colour in ("white", "golden", "pink", "rosy"):
            if f"{colour} clouds" in text:
                assert scene.weather == "cloudy"
                assert colour in words.CLOUD_WORDS[scene.clouds]
        if "night sky" in text or "starry" in text:
            assert (scene.place, scene.time) == ("sky", "night")
        if "blue sea" in text or "blue ocean" in text:
            assert scene.place == "sea"
            assert scene.time in ("day", "night")
        for place in PLACES:
            tags = {f for f in words.PLACE_TAGS[place] if f not in ("sky", "open sky")}
            if place != scene.place:
                assert not any(re.search(rf"(?<![\w-]){tag}(?![\w-])", text) for tag in tags), (text, scene)


def test_what_is_left_out_is_mostly_usual() -> None:
    """A short prompt should mean a clean default picture: flat, by day, in clear weather."""
    rng = random.Random(4)
    silent: dict[str, list[bool]] = {"style": [], "time": [], "weather": []}
    for _ in range(2000):
        scene = sample_scene(rng)
        text = caption(scene, rng).lower()
        if not any(
            form in text
            for n in STYLES
            for form in (*words.STYLE_TAGS[n], *words.STYLE_PREFIXES[n], *words.STYLE_PHRASES[n])
        ):
            silent["style"].append(scene.style == STYLES[0])
        if not any(form in text for n in TIMES for form in (*words.TIME_TAGS[n], *words.TIME_PHRASES[n])):
            silent["time"].append(scene.time == "day")
        if not re.search("cloud|clear|rain|snow|fog|mist", text):
            silent["weather"].append(scene.weather == "clear")
    for name, usual in silent.items():
        assert np.mean(usual) > 0.75, name


def test_captions_vary_and_are_seeded() -> None:
    scene = Scene((Group("boat", "red"),), None, "sea", "sunset", "clear", "watercolour", 3)
    rng = random.Random(5)
    texts = {caption(scene, rng) for _ in range(400)}
    assert len(texts) > 200
    lengths = [len(text.split()) for text in texts]
    assert min(lengths) <= 5
    assert max(lengths) >= 14
    assert caption(scene, random.Random(6)) == caption(scene, random.Random(6))
    assert caption(scene, np.random.default_rng(6)) == caption(scene, np.random.default_rng(6))


def test_captions_reach_the_shapes_users_type() -> None:
    rng = random.Random(7)
    flying = Scene((Group("balloon", "red", 3),), None, "sea", "night", "clear", STYLES[0], 2)
    sunset = Scene((), None, "mountains", "sunset", "cloudy", STYLES[0], 2, "golden")
    boat = Scene((Group("boat", "red"),), None, "sea", "day", "clear", STYLES[0], 2)
    seeds = (replace(flying, seed=seed) for seed in range(1000))
    flying = next(scene for scene in seeds if max(box.y1 for box in layout(scene)) < 0.6)
    for scene, text in (
        (flying, "three red balloons above a blue sea at night"),
        (sunset, "a majestic mountain landscape at sunset with golden clouds"),
        (boat, "a red boat on a calm sea"),
    ):
        assert text in {caption(scene, rng) for _ in range(20000)}


def test_every_name_can_be_said() -> None:
    assert set(words.KIND_WORDS) == set(KINDS)
    assert set(words.COLOUR_WORDS) == set(COLOURS)
    assert set(words.PLACE_TAGS) == set(words.PLACE_PHRASES) == set(PLACES)
    assert set(words.PLACE_NOUNS) == set(words.MOODS) == set(PLACES) - {"plain"}
