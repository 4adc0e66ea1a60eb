from __future__ import annotations

import pytest

from darkroom.errors import InvalidRequest
from darkroom.evaluation.benchmark import GENEVAL_TASKS, SETTING_TASKS, TASKS, Prompt, prompts
from darkroom.world.scene import CORE_PLACES, STYLES, held_out_colour, held_out_pair, held_out_relation


@pytest.mark.parametrize("task", TASKS)
def test_prompts_are_seeded_and_mostly_distinct(task: str) -> None:
    first = prompts(task, 60, seed=3)
    assert first == prompts(task, 60, seed=3)
    assert first != prompts(task, 60, seed=4)
    assert len(first) == 60
    assert len({prompt.text for prompt in first}) > 50
    assert all(prompt.task == task for prompt in first)


@pytest.mark.parametrize("core", [False, True])
def test_compositions_are_held_out(core: bool) -> None:
    def things(task: str) -> list[Prompt]:
        return prompts(task, 100, core=core)

    for prompt in things("two"):
        assert held_out_pair(*(wanted.kind for wanted in prompt.expectation.things))
    for prompt in things("colours") + things("attribution"):
        assert all(held_out_colour(w.kind, w.colour) for w in prompt.expectation.things if w.colour)
        assert all(w.colour and w.colour in prompt.text for w in prompt.expectation.things)
    for prompt in things("position"):
        first, second = prompt.expectation.things
        assert prompt.expectation.relation
        assert held_out_relation(first.kind, prompt.expectation.relation, second.kind)
    for prompt in things("counting"):
        (wanted,) = prompt.expectation.things
        assert wanted.exact
        assert wanted.count in (2, 3, 4)


def test_core_prompts_stay_in_the_core() -> None:
    others = {"mountains", "sea", "city", "forest", "room"} - set(CORE_PLACES)
    for task in GENEVAL_TASKS:
        text = " ".join(prompt.text for prompt in prompts(task, 100, core=True))
        assert not any(f" {word}" in text for word in (*others, *STYLES, "night", "sunset", "sunrise"))
    for task in SETTING_TASKS:
        with pytest.raises(InvalidRequest, match="core"):
            prompts(task, 3, core=True)


def test_settings_ask_for_one_attribute() -> None:
    for task in SETTING_TASKS:
        for prompt in prompts(task, 50):
            asked = {name for name in SETTING_TASKS if getattr(prompt.expectation, name)}
            assert asked == {task}
            assert not prompt.expectation.things


def test_unknown_tasks_are_named() -> None:
    with pytest.raises(InvalidRequest, match="'counting'"):
        prompts("count", 3)
