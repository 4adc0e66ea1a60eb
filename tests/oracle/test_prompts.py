"""What the oracle reads of a prompt, and says of a picture: what both mean is known of drawn scenes."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from darkroom.evaluation.benchmark import TASKS, prompts
from darkroom.oracle.judging import Expectation, Thing, Wanted, satisfies, truth
from darkroom.oracle.prompts import asked_of
from darkroom.oracle.telling import told
from darkroom.oracle.verdicts import verdict_on
from darkroom.world import caption, sample_scene


def scenes(count, seed=0):
    rng = random.Random(seed)
    return [sample_scene(rng, split="any") for _ in range(count)], rng


def test_captions_ask_for_what_their_scenes_show():
    drawn, rng = scenes(1500)
    for scene in drawn:
        text = caption(scene, rng)
        asked = asked_of(text)
        assert satisfies(truth(scene), asked.expectation), text
        found = sorted((each.kind, each.count) for each in asked.expectation.things)
        assert found == sorted((group.kind, group.count) for group in scene.groups), text
        assert (asked.expectation.relation is None) == (scene.relation is None), text
        assert set(asked.unknown) <= {"starry"}, text


@pytest.mark.parametrize("task", TASKS)
def test_prompts_of_the_evaluation_are_read_as_they_are_meant(task):
    for prompt in prompts(task, 60, seed=3):
        found, meant = asked_of(prompt.text).expectation, prompt.expectation
        things = [
            replace(each, colour=wanted.colour and each.colour)
            for each, wanted in zip(found.things, meant.things, strict=False)
        ]
        assert things == [*meant.things], prompt.text
        assert found.relation == meant.relation, prompt.text
        for name in ("place", "time", "weather", "style"):
            assert getattr(meant, name) in (None, getattr(found, name)), prompt.text


def things(*several):
    return Expectation(tuple(Wanted(*each) for each in several))


@pytest.mark.parametrize(
    ("prompt", "expectation", "unknown"),
    [
        ("the boat is red", things(("boat", "red")), ()),
        ("A boat. The boat is blue.", things(("boat", "blue")), ()),
        ("cat, cat, cat", things(("cat",)), ()),
        ("flowers", things(("flower", None, 2)), ()),
        ("exactly one cat", things(("cat", None, 1, True)), ("exactly",)),
        ("five stars", things(("star", None, 5, True)), ()),
        ("a red and white lighthouse", things(("lighthouse",)), ("red", "white")),
        ("two cats, one black", things(("cat", None, 2, True)), ("black",)),
        ("a cat without a boat", things(("cat",), ("boat", None, 0, True)), ()),
        ("an orange cat beside a pumpkin", things(("cat", "orange")), ("beside", "pumpkin")),
        ("a tree with a bird on top", replace(things(("bird",), ("tree",)), relation="on"), ()),
        (
            "a house, and a green tree left of a cat",
            replace(things(("tree", "green"), ("cat",), ("house",)), relation="left of"),
            (),
        ),
        ("a boat under a blue sky at sea", replace(things(("boat",)), place="sea"), ()),
        ("a cat under golden clouds", replace(things(("cat",)), weather="cloudy"), ()),
        ("NEON city, night", Expectation(place="city", time="night", style="neon"), ()),
        ("a dragon", Expectation(), ("dragon",)),
        ("two people and a cat", things(("cat",)), ("people",)),
        ("a house without people and a red boat", things(("house",), ("boat", "red")), ("people",)),
        ("a red dragon and a cat", things(("cat",)), ("dragon", "red")),
        ("a man in a red shirt beside a cat", things(("cat",)), ("man", "shirt", "beside", "red")),
        ("a blue table with a cat", things(("cat",)), ("table", "blue")),
        ("one red and two blue boats", things(("boat", "blue", 2, True)), ("red",)),
        ("a cat left of a dragon and a boat", things(("cat",), ("boat",)), ("dragon",)),
        ("a big red shiny boat", things(("boat", "red")), ("shiny",)),
        ("", Expectation(), ()),
    ],
)
def test_what_people_write(prompt, expectation, unknown):
    asked = asked_of(prompt)
    assert (asked.expectation, asked.unknown) == (expectation, unknown)


def test_a_negative_prompt_asks_for_what_is_not_to_be_there():
    asked = asked_of("a cat at night", "a boat, two red cars, blurry, red cat")
    assert asked.expectation == replace(
        things(("cat",), ("boat", None, 0, True), ("car", "red", 0, True)), time="night"
    )
    assert asked.unknown == ()


def test_what_is_told_of_a_picture_is_true_of_it():
    for scene in scenes(800, seed=1)[0]:
        reading = truth(scene)
        prompt, parts = told(reading)
        asked = asked_of(prompt)
        assert satisfies(reading, asked.expectation), prompt
        assert asked.unknown == (), prompt
        assert all(part.text in prompt for part in parts)
        counts = sum(each.count for each in asked.expectation.things)
        assert counts == len(reading.things), prompt


def test_of_an_empty_plain_picture_its_background_is_told():
    reading = replace(truth(scenes(1)[0][0]), things=())
    reading = replace(reading, place=replace(reading.place, name="plain"))
    assert told(reading)[0].startswith("on a plain background")


def seen(*several, **setting):
    reading = replace(truth(scenes(1)[0][0]), things=tuple(several))
    return replace(reading, **{name: replace(reading.place, name=each) for name, each in setting.items()})


def thing(kind, colour="red", x=0.1, sure=1.0):
    return Thing(kind, colour, x, 0.4, x + 0.2, 0.6, sure)


def test_what_is_nearer_to_what_is_asked_has_the_higher_score():
    asked = asked_of("two red cats").expectation
    right = verdict_on(seen(thing("cat"), thing("cat", x=0.6)), asked)
    unsure = verdict_on(seen(thing("cat", sure=0.6), thing("cat", x=0.6)), asked)
    with_more = verdict_on(seen(thing("cat"), thing("cat", x=0.6), thing("boat", x=0.4)), asked)
    three = verdict_on(seen(thing("cat"), thing("cat", x=0.4), thing("cat", x=0.7)), asked)
    other_colour = verdict_on(seen(thing("cat", "blue"), thing("cat", "blue", x=0.6)), asked)
    none = verdict_on(seen(thing("boat")), asked)
    assert [each.right for each in (right, unsure, with_more)] == [True] * 3
    assert [each.right for each in (three, other_colour, none)] == [False] * 3
    scores = [each.score for each in (right, unsure, three, other_colour, none)]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == len(scores)
    assert right.score == 1.0
    assert unsure.score > with_more.score > three.score
    assert other_colour.missing == ("2 x red cat", "nothing else")
    assert with_more.missing == ("nothing else",)


def test_three_things_and_how_the_first_two_stand():
    asked = asked_of("a red cat left of a red car, and a red boat").expectation
    cat, car, boat = thing("cat", x=0.1), thing("car", x=0.6), thing("boat", x=0.35)
    assert verdict_on(seen(cat, car, boat), asked).right
    there = verdict_on(seen(replace(cat, x0=0.7, x1=0.9), replace(car, x0=0.1, x1=0.3), boat), asked)
    assert not there.right
    assert there.missing == ("red cat left of red car",)


def test_of_many_there_may_be_any_number():
    asked = asked_of("flowers").expectation
    several = [thing("flower", x=0.2 * i) for i in range(4)]
    assert [verdict_on(seen(*several[:count]), asked).score for count in (2, 3, 4)] == [1.0] * 3
    assert not verdict_on(seen(several[0]), asked).right


def test_what_is_to_be_absent():
    asked = asked_of("a cat", "boat").expectation
    assert verdict_on(seen(thing("cat")), asked).right
    assert verdict_on(seen(thing("cat"), thing("boat", x=0.6)), asked).missing == ("no boat",)
