"""What pictures are described with, by what it is about; and people's own lists of such phrases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from darkroom.errors import InvalidRequest
from darkroom.files import expanded, read_text

_LONGEST, _MOST = 200, 20_000

_LISTS = {
    "subject": """
        a woman, a man, a girl, a boy, a baby, an old man, an old woman, a couple, a family, a crowd of
        people, a portrait, a close-up of a face, a person walking, a dancer, a musician, a soldier, a
        knight, a wizard, an astronaut, a robot, a monster, a dragon, an angel, a mermaid, a cat, a kitten,
        a dog, a puppy, a horse, a cow, a sheep, a bird, an owl, a fish, a whale, a butterfly, an insect, a
        fox, a wolf, a bear, a lion, a tiger, an elephant, a rabbit, a deer, a dinosaur, a tree, a forest, a
        flower, a bouquet of flowers, a garden, a field, a meadow, a mountain, mountains, a valley, a river,
        a waterfall, a lake, the sea, a beach, an island, a desert, the sky, clouds, stars, the moon, a
        planet, a galaxy, a city, a street, a village, a house, a castle, a church, a temple, a tower, a
        lighthouse, a bridge, a ruin, a room, a kitchen, a library, a window, a door, a staircase, a car, a
        truck, a bicycle, a train, a boat, a sailing ship, an aeroplane, a hot-air balloon, a rocket, a
        spaceship, a table, a chair, a lamp, a book, a clock, a cup of coffee, a plate of food, a cake,
        fruit, a still life, a bottle, a sword, a crown, jewellery, a mask, a toy, a machine, a geometric
        shape, an abstract pattern, a logo, a map, a chart, text
    """,
    "medium": """
        a photograph, an oil painting, a watercolour painting, an acrylic painting, a gouache painting, a
        fresco, a pencil drawing, a charcoal drawing, an ink drawing, a pastel drawing, a chalk drawing, a
        line drawing, a sketch, an engraving, an etching, a woodcut, a lithograph, a screen print, a
        linocut, a collage, a mosaic, stained glass, a tapestry, embroidery, a sculpture, a marble statue, a
        bronze statue, a wood carving, pottery, origami, paper cutting, a 3D render, digital art, concept
        art, a vector illustration, a flat illustration, pixel art, a cartoon, a comic, anime, a children's
        book illustration, a poster, a stamp, a tattoo, graffiti, a screenshot, a film still, a polaroid, a
        daguerreotype, a blueprint
    """,
    "style": """
        realistic, photorealistic, impressionist, expressionist, cubist, surreal, abstract, minimalist,
        baroque, renaissance, rococo, romantic, gothic, art nouveau, art deco, pop art, op art, ukiyo-e,
        medieval, byzantine, folk art, naive art, fauvist, pointillist, symbolist, constructivist, bauhaus,
        brutalist, futuristic, cyberpunk, steampunk, dieselpunk, vaporwave, retro, vintage, psychedelic,
        fantasy, science fiction, horror, noir, western, kawaii, low poly, isometric
    """,
    "light": """
        soft light, hard light, daylight, golden hour, blue hour, sunrise, sunset, night, moonlight,
        candlelight, firelight, neon light, studio lighting, rim lighting, backlight, silhouette,
        chiaroscuro, volumetric light, god rays, overcast light, dappled light, harsh shadows, low key, high
        key, lens flare
    """,
    "weather": """
        clear sky, blue sky, cloudy, overcast, stormy, lightning, rain, snow, fog, mist, wind, rainbow
    """,
    "colour": """
        black and white, sepia, monochrome, muted colours, pastel colours, vivid colours, warm colours, cold
        colours, earth tones, teal and orange, red, orange, yellow, green, blue, purple, pink, brown, grey,
        gold, silver, high contrast, low contrast
    """,
    "view": """
        close-up, macro, portrait, full body, wide angle, panorama, bird's-eye view, from above, from below,
        from the side, from behind, symmetrical, centred, rule of thirds, shallow depth of field, bokeh,
        motion blur, long exposure, fisheye, tilt-shift, plain background, white background, black
        background, blurred background, detailed background
    """,
    "mood": """
        calm, peaceful, joyful, playful, dreamy, mysterious, dramatic, epic, melancholic, lonely, tense,
        eerie, dark, gloomy, romantic, nostalgic, cosy, majestic, energetic, chaotic
    """,
    "detail": """
        highly detailed, intricate, simple, clean, rough, textured, glossy, matte, grainy, sharp, blurry,
        smooth, visible brush strokes, thick paint, thin lines, bold outlines, dots, cross-hatching,
        patterned, ornate
    """,
}


@dataclass(frozen=True)
class Phrases:
    """Phrases of one sort, of which a prompt has so many at most."""

    texts: tuple[str, ...]
    most: int = 1


def _split(text: str) -> Phrases:
    return Phrases(tuple(" ".join(each.split()) for each in text.split(",") if each.strip()))


PHRASES: Mapping[str, Phrases] = MappingProxyType({about: _split(text) for about, text in _LISTS.items()})
"""Phrases that are tried where no others are given, the first sort being what every prompt begins with."""


def phrases_in(path: str | Path) -> dict[str, Phrases]:
    """People's own phrases: of a text file with one a line, or of all .txt files in a folder, each of which is of one
    sort, as A1111 keeps them in `interrogate/` (mediums.txt, artists.txt, flavors.top3.txt, of which a prompt has three
    at most). Of a single list it has as many as help. Raises InvalidRequest where there are none."""
    place = expanded(path)
    files = sorted(place.glob("*.[tT][xX][tT]")) if place.is_dir() else [place]
    found: dict[str, Phrases] = {}
    for file in files:
        name, _, top = file.stem.partition(".top")
        before = found.get(name, Phrases(()))
        texts = tuple(dict.fromkeys([*before.texts, *_lines(file)]))
        if texts:
            found[name] = Phrases(texts, max(before.most, int(top) if top.isdecimal() else 1))
    if not found:
        raise InvalidRequest(
            f"there are no phrases in {place}: give a text file with one a line, or a folder of such"
        )
    if (count := sum(len(each.texts) for each in found.values())) > _MOST:
        raise InvalidRequest(f"{place} holds {count:,} phrases: give {_MOST:,} at most")
    if len(found) == 1:
        return {name: replace(each, most=len(each.texts)) for name, each in found.items()}
    return found


def _lines(file: Path) -> list[str]:
    try:
        lines = [line.strip() for line in read_text(file).splitlines()]
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"cannot read the phrases in {file}: {error}") from error
    several = [line for line in lines if line and not line.startswith("#")]
    if long := next((line for line in several if len(line) > _LONGEST), None):
        raise InvalidRequest(
            f"{file} is no list of phrases: a line begins {long[:40]!r}, {len(long):,} signs long"
        )
    return several
