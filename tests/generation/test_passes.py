"""Which passes a picture takes, and how it is brought from one to the next."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import darkroom
from darkroom.checkpoint.families import SD1, SD3
from darkroom.errors import InvalidRequest
from darkroom.generation.frames import continued, fitted, stretched
from darkroom.generation.passes import framed, passes
from darkroom.generation.settle import settle
from darkroom.language import Moment

SQUARES = replace(SD1, native=128, preferences=replace(SD1.preferences, compose="native"))


def sizes(family=SQUARES, **settings):
    settled = settle(darkroom.Request("a", seed=1, schedule="simple", **settings), family, "it")
    found = passes(settled, family)
    return [(each.canvas.width, each.canvas.height, each.steps, brought(each.canvas)) for each in found]


def brought(canvas):
    """How the picture before is brought to the size of a canvas, None where it begins with noise."""
    way = canvas.brought.args[0] if hasattr(canvas, "brought") else None
    return getattr(way, "func", way)


@pytest.fixture(scope="module")
def picture():
    """96 x 96: a gradient, something in the middle, and a white rim."""
    found = np.empty((96, 96, 3), np.uint8)
    found[...] = (40 + 2 * np.arange(96, dtype=np.uint8))[:, None, None]
    found[40:60, 30:70] = (200, 30, 30)
    found[:, :2] = found[:, -2:] = found[:2] = found[-2:] = 255
    return found


def test_a_native_picture_takes_one_pass():
    assert sizes() == sizes(compose="own") == [(128, 128, 20, None)]


@pytest.mark.parametrize("side", [256, 512, 1024, 64, 136])
def test_squares_are_drawn_natively(side):
    assert sizes(width=side, height=side) == [(128, 128, 20, None)]


@pytest.mark.parametrize(
    ("width", "height", "frame"),
    [
        (256, 128, (256, 128)),
        (512, 256, (256, 128)),
        (128, 192, (128, 192)),
        (800, 600, (176, 128)),  # 170.7, and what is too much is cut off
        (96, 40, (312, 128)),
        (8192, 8, (1024, 128)),
    ],
)
def test_other_proportions_are_continued(width, height, frame):
    assert framed(width, height, SQUARES) == frame
    assert sizes(width=width, height=height) == [(128, 128, 20, None), (*frame, 5, continued)]


def test_nearly_square_pictures_are_cut():
    assert framed(136, 128, SQUARES) == framed(480, 512, SQUARES) == (128, 128)
    assert framed(144, 128, SQUARES) == (144, 128)


def test_a_frame_keeps_to_what_a_network_can():
    assert framed(8192, 256, replace(SD3, most_patches=192)) == (1536, 1024)


def test_a_second_pass_on_request_comes_last():
    refined = [*sizes(width=256, height=128), (256, 128, 11, fitted)]
    assert sizes(width=256, height=128, second_pass="on") == refined
    assert sizes(width=512, height=512, second_pass="on")[1:] == [(512, 512, 11, fitted)]
    assert sizes(width=64, height=64, second_pass="on") == sizes(
        width=64, height=64
    )  # never made larger than asked


@pytest.mark.parametrize("family", [SQUARES, SD1])
def test_the_first_of_two_passes_may_be_said(family):
    """A1111's hires fix: whatever the model would choose."""
    asked = {"first_width": 96, "first_height": 64, "width": 192, "height": 128}
    assert sizes(family, **asked) == [(96, 64, 20, None), (192, 128, 11, stretched)]
    assert sizes(family, **{**asked, "width": 96, "height": 64}) == [(96, 64, 20, None)]
    assert sizes(family, **asked, second_steps=7, second_strength=0.4)[1][2] == 7
    assert sizes(family, **asked, second_steps=30, second_strength=1.0)[1][2] == 30
    for wrong, message in (
        ({"first_width": 96}, "go together"),
        ({**asked, "second_pass": "off"}, "the first of two passes"),
        ({**asked, "first_width": 90}, "not a multiple of 8"),
    ):
        with pytest.raises(InvalidRequest, match=message):
            sizes(family, **wrong)
    with pytest.raises(InvalidRequest, match=r"first_width is 88: .* multiples of 16"):
        sizes(replace(SD3, patch=2), **{**asked, "first_width": 88})


def test_the_whole_of_the_noise():
    settled = settle(darkroom.Request("a", seed=1, full_noise=True), SD1, "it")
    (found,) = passes(settled, SD1)
    noise = np.random.default_rng(0).standard_normal((1, 4, 8, 8))
    for canvas, share in ((found.canvas, 1.0), (replace(found.canvas, full=False), found.points[0].sigma)):
        with pytest.raises(StopIteration) as ended:
            next(canvas.begin(lambda draw: noise, found.points[0], None))
        np.testing.assert_array_equal(ended.value.value.x, share * noise)
    assert 0.9 < found.points[0].sigma < 1


def test_off_draws_at_once():
    assert sizes(width=512, height=256, second_pass="off") == [(512, 256, 20, None)]


def test_other_families_are_as_they_were():
    assert sizes(SD1, width=1024, height=512) == [(1024, 512, 20, None)]
    assert sizes(SD1, width=1024, height=1024) == [(512, 512, 20, None), (1024, 1024, 11, stretched)]
    assert sizes(SD1, width=1024, height=512, compose="native") == [
        (512, 512, 20, None),
        (1024, 512, 5, continued),
    ]


@pytest.mark.parametrize("schedule", ["simple", "karras", "beta"])
@pytest.mark.parametrize("steps", [1, 3, 4, 10, 30])
def test_a_continuing_pass_takes_the_last_quarter_again(steps, schedule):
    """However few steps there are and wherever they lie: from more noise than that it would draw another picture."""
    asked = darkroom.Request("a", seed=1, steps=steps, schedule=schedule, width=256, height=128)
    first, second = passes(settle(asked, SQUARES, "it"), SQUARES)
    assert first.steps == steps
    assert 100 < second.points[0].time < 350
    assert second.points[-1].sigma == 0
    assert second.moment(second.steps - 1) == Moment(max(steps, 4) - 1, max(steps, 4))


def test_how_it_is_composed_is_checked():
    with pytest.raises(InvalidRequest, match="compose is 'square': choose one of native, own"):
        darkroom.Request("a", compose="square").checked()


def test_what_is_continued_keeps_its_middle(picture):
    wide = continued(picture, 240, 96)
    assert wide.shape == (96, 240, 3)
    assert (wide[:, 72 + 4 : 168 - 4] == picture[:, 4:-4]).all()
    assert (continued(picture.transpose(1, 0, 2), 96, 240) == wide.transpose(1, 0, 2)).all()
    assert (continued(picture, 96, 96) == picture).all()
    sides = wide[8:-8, [*range(70), *range(170, 240)]].astype(int)
    assert (np.ptp(sides, axis=1) < 8).all(), "neither the rim nor what is in the middle goes on"
    assert np.abs(sides[:, 0] - picture[8:-8, 10]).max() < 6


def test_what_is_continued_is_as_large_as_fits(picture):
    assert continued(picture, 400, 200).shape == (200, 400, 3)
    middle = continued(picture, 400, 200)[20:-20, 120:280].astype(int)
    assert np.abs(middle - stretched(picture, 200, 200)[20:-20, 20:180]).max() <= 1


def test_what_is_too_much_is_cut_off_both_sides(picture):
    assert fitted(picture, 96, 96) is picture
    assert (fitted(picture, 60, 96) == picture[:, 18:78]).all()
    assert (fitted(picture, 96, 40) == picture[28:68]).all()
    doubled = np.asarray(Image.fromarray(picture).resize((192, 192), Image.Resampling.LANCZOS))
    assert (fitted(picture, 192, 192) == doubled).all()
