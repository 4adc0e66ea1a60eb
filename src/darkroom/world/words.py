"""The vocabulary of captions: how each name of the world may be said, the first form being the commonest."""

from __future__ import annotations

# Singular and plural.
KIND_WORDS: dict[str, tuple[tuple[str, str], ...]] = {
    "tree": (("tree", "trees"), ("oak", "oaks")),
    "flower": (("flower", "flowers"), ("blossom", "blossoms")),
    "mushroom": (("mushroom", "mushrooms"), ("toadstool", "toadstools")),
    "house": (("house", "houses"), ("cottage", "cottages")),
    "lighthouse": (("lighthouse", "lighthouses"),),
    "cat": (("cat", "cats"), ("kitten", "kittens")),
    "bird": (("bird", "birds"),),
    "fish": (("fish", "fish"),),
    "butterfly": (("butterfly", "butterflies"),),
    "boat": (("boat", "boats"), ("sailboat", "sailboats"), ("sailing boat", "sailing boats")),
    "car": (("car", "cars"), ("automobile", "automobiles")),
    "balloon": (
        ("balloon", "balloons"),
        ("hot-air balloon", "hot-air balloons"),
        ("hot air balloon", "hot air balloons"),
    ),
    "rocket": (("rocket", "rockets"), ("spaceship", "spaceships")),
    "circle": (("circle", "circles"), ("disc", "discs")),
    "square": (("square", "squares"),),
    "triangle": (("triangle", "triangles"),),
    "star": (("star", "stars"),),
    "heart": (("heart", "hearts"),),
}
COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    "red": ("red", "crimson", "scarlet", "bright red"),
    "orange": ("orange", "bright orange", "tangerine"),
    "yellow": ("yellow", "bright yellow", "golden"),
    "green": ("green", "emerald", "bright green"),
    "blue": ("blue", "bright blue", "azure"),
    "purple": ("purple", "violet"),
    "pink": ("pink", "rose-coloured", "bright pink"),
    "brown": ("brown", "chestnut", "chocolate brown"),
    "black": ("black", "jet black", "pitch-black"),
    "white": ("white", "snow-white", "pure white"),
    "grey": ("grey", "gray"),
}
NUMBER_WORDS = {2: ("two", "2", "a pair of"), 3: ("three", "3"), 4: ("four", "4")}

# For a tag; for "a picture of ..." (a noun with its article); for "... in/on/by it".
PLACE_TAGS: dict[str, tuple[str, ...]] = {
    "plain": ("plain background", "simple background", "studio backdrop"),
    "mountains": ("mountains", "mountain landscape", "alpine"),
    "sea": ("sea", "ocean", "seascape"),
    "city": ("city", "city skyline", "cityscape"),
    "desert": ("desert", "sand dunes"),
    "forest": ("forest", "woods", "woodland"),
    "meadow": ("meadow", "green field", "grassland"),
    "sky": ("sky", "open sky"),
    "room": ("room", "indoors", "interior"),
}
PLACE_NOUNS: dict[str, tuple[str, ...]] = {
    "mountains": ("{a} mountain landscape", "{a} mountain range", "{adj} mountains", "{a} mountain view"),
    "sea": ("{a} sea", "{a} ocean", "{a} seascape"),
    "city": ("{a} city", "{a} city skyline", "{a} cityscape"),
    "desert": ("{a} desert", "{a} desert landscape", "{adj} sand dunes"),
    "forest": ("{a} forest", "{a} wood", "{a} forest landscape"),
    "meadow": ("{a} meadow", "{a} grassy field", "{a} meadow landscape"),
    "sky": ("{a} sky", "{a} open sky"),
    "room": ("{a} room", "{a} room with a window"),
}
PLACE_PHRASES: dict[str, tuple[str, ...]] = {
    "plain": ("on a plain background", "against a plain background", "on a simple background", "in a studio"),
    "mountains": (
        "in the mountains",
        "in front of {adj} mountains",
        "in {a} mountain landscape",
        "before the mountains",
    ),
    "sea": ("at sea", "by the sea", "on the sea", "by {a} sea", "on {a} sea", "on {a} ocean"),
    "city": ("in the city", "in {a} city", "in front of {a} city skyline", "before {a} skyline"),
    "desert": ("in the desert", "in {a} desert", "among sand dunes"),
    "forest": ("in the forest", "in {a} forest", "in the woods", "in the middle of {a} forest"),
    "meadow": ("in a meadow", "in {a} meadow", "on {a} meadow", "in a grassy field"),
    "sky": ("in the sky", "in {a} sky", "against the sky", "in the open sky"),
    "room": ("in a room", "in {a} room", "indoors", "inside {a} room"),
}
# Words of praise and mood: they claim nothing that could be false.
MOODS = {
    "mountains": ("majestic", "beautiful", "grand", "peaceful"),
    "sea": ("calm", "beautiful", "wide", "peaceful"),
    "city": ("big", "beautiful", "quiet", "modern"),
    "desert": ("wide", "quiet", "beautiful", "vast"),
    "forest": ("quiet", "beautiful", "peaceful", "deep"),
    "meadow": ("peaceful", "beautiful", "quiet", "wide"),
    "sky": ("wide", "beautiful", "vast", "peaceful"),
    "room": ("quiet", "cosy", "beautiful", "tidy"),
}
THING_MOODS = ("beautiful", "lovely", "nice", "pretty", "charming")

TIME_TAGS: dict[str, tuple[str, ...]] = {
    "day": ("day", "noon", "daytime", "daylight"),
    "sunrise": ("sunrise", "dawn", "early morning"),
    "sunset": ("sunset", "dusk", "evening"),
    "night": ("night", "nighttime", "at night"),
}
TIME_PHRASES: dict[str, tuple[str, ...]] = {
    "day": ("by day", "at noon", "during the day", "in daylight"),
    "sunrise": ("at sunrise", "at dawn", "in the early morning", "as the sun rises"),
    "sunset": ("at sunset", "at dusk", "in the evening", "as the sun sets"),
    "night": ("at night", "by night", "during the night", "in the middle of the night"),
}
WEATHER_TAGS: dict[str, tuple[str, ...]] = {
    "clear": ("clear sky", "clear weather"),
    "cloudy": ("{clouds} clouds", "cloudy", "{clouds} clouds in the sky"),
    "rain": ("rain", "rainy", "rainy weather"),
    "snow": ("snow", "snowy", "snowfall"),
    "fog": ("fog", "foggy", "mist"),
}
WEATHER_PHRASES: dict[str, tuple[str, ...]] = {
    "clear": ("under a clear sky", "in clear weather"),
    "cloudy": (
        "with {clouds} clouds",
        "under {clouds} clouds",
        "under a cloudy sky",
        "with {clouds} clouds in the sky",
    ),
    "rain": ("in the rain", "in rainy weather", "while it rains", "in pouring rain"),
    "snow": ("in the snow", "while it snows", "in snowy weather", "in falling snow"),
    "fog": ("in the fog", "in the mist", "in foggy weather", "in thick fog"),
}
# What the weather is where the picture shows it through a window.
WINDOW_PHRASES: dict[str, tuple[str, ...]] = {
    "clear": ("with a clear sky outside the window",),
    "cloudy": (
        "with {clouds} clouds outside the window",
        "with {clouds} clouds behind the window",
        "while it is cloudy outside",
    ),
    "rain": ("with rain outside the window", "while it rains outside"),
    "snow": ("with snow outside the window", "while it snows outside"),
    "fog": ("with fog outside the window", "while it is foggy outside"),
}
CLOUD_WORDS = {"white": ("white",), "golden": ("golden",), "pink": ("pink", "rosy")}

STYLE_TAGS: dict[str, tuple[str, ...]] = {
    "flat illustration": ("flat illustration", "flat design", "vector illustration"),
    "watercolour": ("watercolour", "watercolor", "watercolour painting", "watercolor painting"),
    "ink drawing": ("ink drawing", "pen and ink", "ink sketch"),
    "pixel art": ("pixel art", "8-bit pixel art", "pixelated"),
    "neon": ("neon", "cyberpunk", "neon cyberpunk", "glowing neon"),
    "pastel": ("pastel", "pastel colours", "pastel colors", "soft pastel"),
}
# "<prefix> a red boat"
STYLE_PREFIXES: dict[str, tuple[str, ...]] = {
    "flat illustration": ("a flat illustration of", "a vector illustration of", "an illustration of"),
    "watercolour": (
        "a watercolour of",
        "a watercolor of",
        "a watercolour painting of",
        "a watercolor painting of",
    ),
    "ink drawing": ("an ink drawing of", "a pen and ink drawing of", "an ink sketch of"),
    "pixel art": ("a pixel art picture of", "pixel art of", "an 8-bit pixel art image of"),
    "neon": ("a neon picture of", "a cyberpunk picture of", "a glowing neon image of", "cyberpunk art of"),
    "pastel": ("a pastel drawing of", "a pastel picture of", "a soft pastel drawing of"),
}
STYLE_PHRASES: dict[str, tuple[str, ...]] = {
    "flat illustration": ("as a flat illustration", "in flat style", "in a flat illustration style"),
    "watercolour": ("in watercolour", "in watercolor", "painted in watercolour", "in watercolour style"),
    "ink drawing": ("drawn in ink", "in ink", "in the style of an ink drawing"),
    "pixel art": ("in pixel art", "as pixel art", "in pixel art style"),
    "neon": ("in neon style", "in cyberpunk style", "in glowing neon", "in neon light"),
    "pastel": ("in pastel", "in pastel colours", "in soft pastel colors", "in pastel style"),
}
PREFIXES = ("a photo of", "a picture of", "an image of", "a drawing of")

# "<a> <relation> <b>", and with b named first: "<b> with <a> <inverse>".
RELATION_PHRASES: dict[str, tuple[str, ...]] = {
    "left of": ("to the left of", "left of", "on the left side of", "on the left of"),
    "right of": ("to the right of", "right of", "on the right side of", "on the right of"),
    "above": ("above", "over", "higher than"),
    "below": ("below", "under", "beneath", "underneath"),
    "on": ("on top of", "on", "standing on", "sitting on"),
}
INVERSE_PHRASES: dict[str, tuple[str, ...]] = {
    "left of": ("to {its} left", "on {its} left"),
    "right of": ("to {its} right", "on {its} right"),
    "above": ("above {it}", "over {it}"),
    "below": ("below {it}", "under {it}", "beneath {it}"),
    "on": ("on top", "on top of {it}"),
}


def article(text: str) -> str:
    """ "a boat", "an orange boat"."""
    return ("an " if text[:1] in "aeiou" else "a ") + text


def fill(form: str, mood: str = "") -> str:
    """A place's form with its article and adjective: "{a} sea" and "calm" make "a calm sea"."""
    after = form.partition("{a}")[2].strip()
    indefinite = article(mood or after).split()[0]
    return " ".join(form.format(a=f"{indefinite} {mood}", adj=mood).split())
