"""Choosing among variants: whatever the judge says, each picture is what its seed alone makes."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from PIL import Image

import darkroom
from darkroom.choosing import VARIATION_STRENGTH, by_noise, can_halt, interrogated, variation_of
from darkroom.errors import GenerationError, InvalidRequest
from darkroom.generation import Request
from darkroom.generation.picture import made_by
from darkroom.generation.work import Decode, Denoise
from darkroom.ranking.halting import halts_after
from darkroom.ranking.judge import Judgement, said_plainly
from darkroom.ranking.options import Choosing

ASKED = {"steps": 6, "width": 40, "height": 32, "seed": 5}


@dataclass
class Brightness:
    """A judge that likes light, and remembers what it saw."""

    name: str = "brightness"
    path = None
    notes = ()

    def __post_init__(self):
        self.seen = []

    def asked(self, prompt, negative):
        self.seen.append((prompt, negative))
        return self

    def __call__(self, pictures):
        self.seen += [each.size for each in pictures]
        return [Judgement(float(np.asarray(each).mean())) for each in pictures]


@pytest.fixture(scope="module")
def toy(toy_folder):
    return darkroom.load(toy_folder, device="cpu")


@pytest.fixture
def judge(toy, monkeypatch):
    judge = Brightness()
    monkeypatch.setattr(toy, "judge", lambda name=None: judge)
    return judge


@pytest.fixture
def calls(monkeypatch):
    """The rows of each network call that was made."""
    made, call = [], Denoise.call

    def counted(self, networks, rows):
        made.append(len(rows))
        return call(self, networks, rows)

    monkeypatch.setattr(Denoise, "call", counted)
    return made


def bytes_of(picture):
    return picture.image.tobytes()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"sampler": "euler_ancestral"},
        {"sampler": "heun", "guidance": 1.0},
        {"sampler": "dpmpp_sde", "schedule": "karras"},
        {"variation_strength": 0.4, "variation_seed": 9},
        {"width": 64, "height": 64, "second_pass": "on", "compose": "native"},
        {"seamless": "x"},
        {"dynamic": "random", "negative": "{night|day}"},
    ],
    ids=lambda settings: ",".join(settings) or "plain",
)
def test_what_is_kept_is_what_the_seed_alone_makes(toy, judge, settings):
    asked = {**ASKED, **settings}
    plain = toy.generate("a red boat", count=5, **asked)
    choice = toy.choose("a red boat", variants=5, finish=3, keep=2, **asked)
    finished = {each.index: each.picture for each in choice.variants if each.picture is not None}
    assert len(finished) == 3
    for index, picture in finished.items():
        assert bytes_of(picture) == bytes_of(plain[index])
        assert picture.metadata["request"] == plain[index].metadata["request"]
    best = sorted(finished.values(), key=lambda each: -np.asarray(each.image).mean())
    assert [each.index for each in choice.kept] == [each.index for each in best[:2]]
    assert sorted(each.index for each in choice.variants) == [0, 1, 2, 3, 4]


def test_those_go_on_that_look_best_after_a_third(toy, judge, calls):
    choice = toy.choose("a red boat", variants=6, finish=2, **ASKED)
    steps, (looks, ahead) = ASKED["steps"], halts_after(ASKED["steps"], 1 / 3)
    assert looks + ahead == math.ceil(steps / 3)
    assert len(calls) == 6 * (looks + ahead) + 2 * (steps - looks)
    early = {each.index: (each.early or each.judgement).score for each in choice.variants}
    assert {each.done for each in choice.variants if each.picture is None} == {looks}
    assert {each.done for each in choice.variants if each.picture is not None} == {steps}
    best = sorted(early, key=lambda index: -early[index])[:2]
    assert {each.index for each in choice.variants if each.picture is not None} == {*best}
    assert judge.seen == [("a red boat", ""), *[(40, 32)] * 8]


@pytest.mark.parametrize(
    ("share", "steps", "halts"),
    [
        (0.01, 6, (1, 1)),
        (0.5, 6, (2, 1)),
        (0.67, 6, (3, 2)),
        (0.9, 6, None),
        (1.0, 6, None),
        (1 / 3, 20, (4, 3)),
        (1 / 3, 4, (1, 1)),
        (1 / 3, 2, None),
        (1 / 3, 1, None),
    ],
)
def test_they_are_looked_at_when_it_is_said(toy, judge, calls, share, steps, halts):
    choice = toy.choose("a red boat", variants=3, finish=1, look_after=share, **{**ASKED, "steps": steps})
    if halts is None:  # Where nothing would be saved each is finished at once, and looked at then.
        assert len(calls) == 3 * steps
    else:
        assert halts_after(steps, share) == halts
        assert len(calls) == 3 * sum(halts) + steps - halts[0]
    assert len(choice.kept) == 1


def test_all_are_finished_where_it_is_said(toy, judge, calls):
    choice = toy.choose("a red boat", variants=3, finish=3, **ASKED)
    assert len(calls) == 3 * ASKED["steps"]
    assert all(each.picture is not None and each.early is None for each in choice.variants)


def test_steps_are_told_and_work_stops_when_it_is_wished(toy, judge, calls):
    told = []
    choice = toy.choose("a red boat", variants=4, finish=2, callback=told.append, **ASKED)
    assert {(each.index, each.done) for each in told[:4]} == {(i, done) for i in range(4) for done in (1,)}
    finished = {each.index for each in choice.variants if each.picture is not None}
    assert {each.index for each in told[4:]} == finished
    assert {each.seed for each in told} == {5, 6, 7, 8}

    early = toy.choose("a red boat", variants=4, callback=lambda step: step.index < 1, **ASKED)
    assert [each.index for each in early.variants] == [0]
    assert early.kept == []
    late = toy.choose("a red boat", variants=4, finish=3, callback=lambda step: step.done < 6, **ASKED)
    assert late.kept == []
    assert len(late.variants) == 4


def test_what_is_right_is_before_what_is_not(toy, monkeypatch, judge):
    def judged(pictures):
        return [Judgement(score := float(np.asarray(each).mean()), score < 128, ()) for each in pictures]

    monkeypatch.setattr(Brightness, "__call__", lambda self, pictures: judged(pictures))
    choice = toy.choose("a red boat", variants=6, finish=6, **ASKED)
    right = [each.judgement.right for each in choice.variants]
    assert right == sorted(right, reverse=True)
    for side in (True, False):
        scores = [each.judgement.score for each in choice.variants if each.judgement.right is side]
        assert scores == sorted(scores, reverse=True)


def test_ranking_and_sheet_tell_all_of_them(toy, judge):
    choice = toy.choose("a red boat", variants=5, finish=3, keep=2, **ASKED)
    said = json.loads(json.dumps(choice.to_dict()))
    assert [each["rank"] for each in said["variants"]] == [1, 2, 3, 4, 5]
    assert [each["finished"] for each in said["variants"]] == [True] * 3 + [False] * 2
    assert {each["seed"] for each in said["variants"]} == {5, 6, 7, 8, 9}
    assert said["variants"][0]["early"]["score"] != said["variants"][0]["score"]
    assert choice.kept[0].metadata["chosen"] == {
        "judge": "brightness",
        "rank": 1,
        "of": 5,
        "score": said["variants"][0]["score"],
    }
    lines = choice.lines()
    assert [line[0] for line in lines] == ["*", "*", " ", " ", " "]
    assert all("given up after 1 of 6 steps" in line for line in lines[3:])
    sheet = choice.sheet()
    assert sheet.width == 3 * 192 + 4 * 10
    frames = [
        sheet.getpixel((10 + number % 3 * 202 + 96, 10 + number // 3 * 244 + 17)) for number in range(5)
    ]
    assert [each == (80, 200, 120) for each in frames] == [True, True, False, False, False]


def test_pictures_of_every_size_have_a_sheet(toy, judge):
    for width, height in ((8, 8), (96, 16), (16, 96)):
        choice = toy.choose("a", variants=2, steps=2, seed=1, width=width, height=height)
        sheet = choice.sheet()
        drawn = sheet.crop((10, 10, 202, 202)).getcolors(1 << 16)
        share = min(width, height) / max(width, height)
        ground = sum(count for count, colour in drawn if colour == (24, 24, 27)) / 192**2
        assert ground == pytest.approx(1 - share, abs=0.05)


@pytest.mark.wide
def test_a_sheet_of_very_many_is_no_larger_than_files_can_be(toy, judge):
    choice = toy.choose("a", variants=2, finish=2, steps=1, seed=1, width=8, height=8)
    many = replace(choice, variants=choice.variants[:1] * 7000)
    assert max(many.sheet().size) <= 16_383


@pytest.mark.parametrize(
    ("choosing", "words"),
    [
        ({"variants": 1}, "variants is 1: choose 2 to 1,000"),
        ({"variants": "many"}, "variants is 'many': give a whole number"),
        ({"finish": 9}, "finish is 9, of 8 variants: choose 8 at most"),
        ({"keep": 5, "finish": 4}, "keep is 5, of 4 that are finished: raise `finish=`"),
        ({"keep": 9}, "keep is 9, of 8 variants"),
        ({"look_after": 0}, "look_after is 0.0: choose above 0 to 1"),
        ({"look_after": 1.5}, "look_after is 1.5"),
    ],
)
def test_what_cannot_be_chosen_is_told_before_anything_is_drawn(toy, calls, choosing, words):
    with pytest.raises(InvalidRequest, match=words):
        toy.choose("a red boat", judge="oracle", **choosing, **ASKED)
    assert calls == []


def test_what_the_judge_knows_nothing_of_is_told_before_anything_is_drawn(toy, calls):
    with pytest.raises(InvalidRequest, match="knows nothing of what is asked in 'a dragon'"):
        toy.choose("a dragon", judge="oracle", **ASKED)
    with pytest.raises(InvalidRequest, match="count is 2: of variants there are as many as `variants=` says"):
        toy.choose("a cat", judge="oracle", count=2, **ASKED)
    assert calls == []
    choice = toy.choose("a dragon and a red boat", judge="oracle", variants=2, **ASKED)
    assert choice.notes == ("the oracle knows nothing of: dragon",)


def test_half_is_finished_where_nothing_is_said_and_never_fewer_than_are_kept():
    assert [Choosing(count).finished for count in (2, 3, 8, 9)] == [1, 2, 4, 5]
    assert Choosing(8, keep=6).checked().finished == 6


@pytest.mark.parametrize(
    ("prompt", "settings", "plain"),
    [
        ("a (red:1.3) boat, ((calm)) sea", {}, ("a red boat, calm sea", "")),
        ("[a cat:a dog:0.5] at sea", {"negative": "[night]"}, ("a dog at sea", "night")),
        ("a cat AND a boat :0.5 AND a tree :-1", {}, ("a cat, a boat", "")),
        ("a cat BREAK a boat", {}, ("a cat, a boat", "")),
        ("a (red:1.3) boat", {"dialect": "plain"}, ("a (red:1.3) boat", "")),
    ],
)
def test_judges_are_told_what_is_read_in_the_end(toy, prompt, settings, plain):
    request = toy.settle(Request(prompt, seed=1, steps=4, **settings)).single(0)
    assert said_plainly(request) == plain


# Others like a picture


def test_a_variation_is_of_its_own_noise_and_a_little_of_others(toy, judge):
    (picture,) = toy.generate("a red boat", **ASKED)
    choice = toy.vary(picture, variants=3, finish=3, keep=3, variation_seed=70)
    assert {each.request.seed for each in choice.variants} == {5}
    assert {each.request.noise.variation_seed for each in choice.variants} == {70, 71, 72}
    assert {each.request.noise.variation_strength for each in choice.variants} == {VARIATION_STRENGTH}
    (plain,) = toy.generate("a red boat", variation_strength=VARIATION_STRENGTH, variation_seed=71, **ASKED)
    assert bytes_of(plain) in {bytes_of(each) for each in choice.kept}

    def apart(strength):
        made = toy.vary(picture, variants=2, finish=2, keep=2, variation_seed=70, variation_strength=strength)
        return sum(np.abs(np.asarray(e.image, float) - np.asarray(picture.image)).mean() for e in made.kept)

    assert apart(0.01) < apart(0.2) < apart(0.9)


def test_a_variation_of_a_variation_goes_from_the_noise_that_it_is_nearest_to():
    recipe = Request("a boat", seed=3, variation_seed=8, variation_strength=0.4, refiner_switch=0.8)
    own = recipe.replace(variation_seed=None, variation_strength=VARIATION_STRENGTH)
    assert variation_of(recipe, True, None, {}) == own
    assert variation_of(recipe, False, None, {}) == own.replace(refiner_switch=None)
    # It is nearer to the noise of the other seed.
    far = recipe.replace(variation_strength=0.9)
    assert variation_of(far, True, None, {}) == own.replace(seed=8)
    assert variation_of(recipe, True, "a cat", {"variation_strength": 0.1}).noise.variation_strength == 0.1
    assert variation_of(Request("a boat", seed=3), False, "a cat", {"steps": 4}) == Request(
        "a cat", seed=3, steps=4, variation_strength=VARIATION_STRENGTH
    )


def test_a_picture_of_anybody_is_drawn_over_by_what_it_shows(toy, monkeypatch):
    from darkroom.oracle.judging import truth
    from darkroom.oracle.telling import told
    from darkroom.world import Group, Scene, render

    scene = Scene((Group("boat", "red"),), None, "sea", "night", "clear", "watercolour", 4)
    image = Image.fromarray(render(scene, 128))
    asked = toy.drawn_over(image, None, None, "oracle", {})
    assert asked.prompt == told(truth(scene))[0] == "a red boat at sea at night, watercolour"
    assert asked.edit.strength == 0.5
    assert toy.drawn_over(image, "a cat", None, None, {"strength": 0.3}).edit.strength == 0.3
    (made,) = toy.vary(image, variants=2, judge="oracle", width=32, height=32, steps=3).kept
    assert made.metadata["request"]["prompt"] == asked.prompt
    assert made.metadata["request"]["edit"]["strength"] == 0.5


@pytest.mark.parametrize(
    ("settings", "prompt"),
    [
        ({"strength": 0.7}, "a red boat"),
        ({"mask_box": "0,0,16,16"}, "a red boat"),
        ({"extend_left": 8}, "a red boat"),
        ({"like": Request("a green tree", seed=2)}, "a green tree"),
        ({"like": False, "prompt": "a cat"}, "a cat"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_what_is_said_of_an_edit_draws_over_the_picture(toy, judge, settings, prompt):
    (picture,) = toy.generate("a red boat", **ASKED)
    (kept,) = toy.vary(picture, variants=2, steps=3, seed=4, **settings).kept
    request = kept.metadata["request"]
    assert request["prompt"] == prompt
    assert request["edit"]["image"]["sha256"]
    assert request["edit"]["strength"] == settings.get("strength", 0.5)


def test_an_edit_of_what_is_not_there_any_more_is_drawn_over(toy, judge, tmp_path):
    (edited,) = toy.edit(Image.new("RGB", (40, 32), "red"), "a boat", steps=3, seed=1)
    (kept,) = toy.vary(edited, variants=2, seed=4, steps=3).kept
    assert kept.metadata["request"]["edit"]["strength"] == 0.5
    Image.new("RGB", (40, 32), "red").save(tmp_path / "red.png")
    (edited,) = toy.edit(tmp_path / "red.png", "a boat", strength=0.7, steps=3, seed=1)
    assert by_noise(made_by(edited), toy.family, {})
    (tmp_path / "red.png").unlink()
    assert not by_noise(made_by(edited), toy.family, {})


def test_models_that_vary_pictures_do_it_their_way(folder):
    model = darkroom.load(folder("unclip"), device="cpu")
    image = Image.new("RGB", (64, 64), "red")
    asked = model.drawn_over(image, "a cat", None, None, {})
    assert asked.edit.strength is None
    assert asked.edit.image is not None
    assert not by_noise(Request("a cat", seed=1), model.family, {})


def test_what_is_no_picture_cannot_be_varied(toy, judge):
    for given in (None, 5, b"nothing"):
        with pytest.raises(InvalidRequest, match=r"image|picture"):
            toy.vary(given, "a boat", variants=2)
    with pytest.raises(InvalidRequest, match="variation_seed 18446744073709551615 plus 4 pictures passes"):
        toy.vary(toy.generate("a", **ASKED)[0], variants=4, variation_seed=2**64 - 1)
    with pytest.raises(InvalidRequest, match="judge is 5"):
        toy_judge(toy, 5)
    with pytest.raises(InvalidRequest, match="phrases is 7: give a text file"):
        interrogated(judge, Image.new("RGB", (8, 8)), 7)


def toy_judge(model, name):
    return type(model).judge(model, name)


def test_a_judge_is_read_once_and_let_go_of(toy_folder):
    model = darkroom.load(toy_folder, device="cpu")
    assert model.judge("oracle") is model.judge("oracle")
    model.close()
    assert model._judges == {}


def test_what_is_transparent_is_judged_over_white(toy, judge):
    clear = Image.new("RGBA", (40, 32), (255, 0, 0, 0))
    found = toy.choose("a cat", image=clear, loops=0, details=["oracle"], variants=2, finish=2, **ASKED)
    assert found.kept[0].image.mode == "RGBA"
    assert found.variants[0].judgement.score == 255


def test_one_that_fails_is_left_out(toy, judge, monkeypatch):
    run, made = Decode.run, []

    def failing(self, networks, note=None):
        made.append(self)
        if len(made) == 2:
            raise GenerationError("the finished latent is not a number")
        return run(self, networks)

    monkeypatch.setattr(Decode, "run", failing)
    choice = toy.choose("a cat", variants=3, finish=3, **ASKED)
    assert [each.index for each in choice.variants if each.picture is not None] != [0, 1, 2]
    assert len(choice.variants) == 2
    assert choice.notes == ("variant 2 failed: the finished latent is not a number",)
    monkeypatch.setattr(Decode, "run", lambda *_: (_ for _ in ()).throw(GenerationError("nothing")))
    with pytest.raises(GenerationError, match="nothing"):
        toy.choose("a cat", variants=3, **ASKED)


def test_those_that_look_right_are_finished_and_half_at_most(toy, monkeypatch, judge):
    """Of what does not look right only as many as are kept."""

    def told(right):
        def judged(self, pictures):
            self.seen += pictures
            number = len(self.seen) - 1
            return [Judgement(float(number), number in right if number < 8 else True) for _ in pictures]

        monkeypatch.setattr(Brightness, "__call__", judged)
        judge.seen.clear()
        choice = toy.choose("a cat", variants=8, **{**ASKED, "steps": 9})
        return sorted(each.index for each in choice.variants if each.picture is not None)

    monkeypatch.setattr(Brightness, "asked", lambda self, *_: self)
    assert told({2, 5}) == [2, 5]
    assert told({0, 1, 2, 3, 6, 7}) == [2, 3, 6, 7]
    assert told({}) == [7]


def test_parts_of_pictures_are_looked_at_when_they_are_finished(toy, judge, calls):
    (picture,) = toy.generate("a red boat", **ASKED)
    calls.clear()
    choice = toy.choose(
        "a cat",
        image=picture,
        mask_box="8,8,16,16",
        only_masked=True,
        variants=3,
        finish=1,
        guidance=1.0,
        steps=4,
        seed=1,
        strength=1.0,
    )
    assert all(each.picture is not None for each in choice.variants)
    assert "nothing can be told halfway" in choice.notes[0]
    assert not can_halt(choice.variants[0].request)


def test_edits_are_chosen_too(toy, judge):
    (picture,) = toy.generate("a red boat", **ASKED)
    plain = toy.edit(picture, "a cat", count=4, seed=3, strength=0.6)
    choice = toy.choose(
        "a cat",
        image=picture,
        seed=3,
        strength=0.6,
        variants=4,
        finish=2,
        **{name: ASKED[name] for name in ("steps", "width", "height")},
    )
    for each in choice.variants:
        if each.picture is not None:
            assert bytes_of(each.picture) == bytes_of(plain[each.index])
