"""Every setting that a recipe can reach: its numbers are bounded in its type, and absurd values are a setting or one
sentence. A new task, method, data set or setting is tested by being there."""

import dataclasses
import inspect
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import annotated_types
import pydantic
import pytest
import yaml

from vidistill.config import Settings, check_options, parts_of_hint, validate
from vidistill.data.augment import CameraMotion
from vidistill.errors import UserError
from vidistill.methods import METHODS
from vidistill.ops.normalise import Normalisation
from vidistill.runs.recipe import Recipe, load_recipe
from vidistill.tasks import DATASETS, TASKS

GIANT = 10**400
ABSURD = [
    math.nan, math.inf, -math.inf, -1, 0, 0.5, -1e-9, 1e-320, 1e308, 2**31, 2**63, 2**64, GIANT, -GIANT, True, False,
    None, "", "²", "1e400", "nan", "many", "a\0b", "\ud800", "x" * 10_000, [], [2, 1], [1e-9, 1e-9], [[]], [None], {},
    {"a": 1}, {1: 2}, {"name": 3}, b"bytes", object,
]  # fmt: skip


def reachable() -> dict[str, Callable[..., object]]:
    """By name, whatever takes settings: classes of settings, dataclasses, and the functions that build data sets."""
    roots = {"Recipe": Recipe, "Normalisation": Normalisation, "CameraMotion": CameraMotion}
    roots |= {f"task {name}": task for name, task in TASKS.items()}
    roots |= {f"clips of {name}": task.clip_settings for name, task in TASKS.items()}
    roots |= {f"method {name}": method for name, method in METHODS.items()}
    roots |= {f"data set {name}": builder for name, builder in DATASETS.items()}
    found: dict[str, Callable[..., object]] = {}
    waiting = list(roots.items())
    while waiting:
        name, owner = waiting.pop()
        if owner not in found.values():
            found[name] = owner
            inner = [part for hint in fields_of(owner).values() for part in parts_of_hint(hint)]
            waiting += [(part.__name__, part) for part in inner if is_settings(part)]
    return found


def is_settings(part: Any) -> bool:
    return inspect.isclass(part) and (issubclass(part, Settings) or dataclasses.is_dataclass(part))


def fields_of(owner: Callable[..., object]) -> dict[str, Any]:
    if inspect.isclass(owner) and issubclass(owner, pydantic.BaseModel):
        return get_type_hints(owner, include_extras=True)
    names = inspect.signature(owner).parameters
    hints = get_type_hints(owner.__init__ if inspect.isclass(owner) else owner, include_extras=True)
    return {name: hints[name] for name in names}


OWNERS = reachable()


def unbounded(hint: Any) -> Iterator[Any]:
    """The int and float in a hint without a least and a most value."""
    for part in parts_of_hint(hint):
        if part in (int, float):
            yield part
        if get_origin(part) is Annotated:
            inner, *metadata = get_args(part)
            kinds = {type(one) for field in metadata for one in getattr(field, "metadata", [])}
            if inner in (int, float) and not {annotated_types.Ge, annotated_types.Le} <= kinds:
                yield part


def test_the_walk_sees_what_unbounded_numbers_are() -> None:
    assert list(unbounded(dict[str, tuple[int, ...]] | None)) == [int]
    assert len(OWNERS) > 40


@pytest.mark.parametrize("name", OWNERS)
def test_every_number_has_a_least_and_a_most_value(name: str) -> None:
    hints = {n: h for n, h in fields_of(OWNERS[name]).items() if n != "return"}
    assert not {field: found for field, hint in hints.items() if (found := list(unbounded(hint)))}


def settings_of(owner: Callable[..., object], values: dict[str, Any]) -> object:
    if inspect.isclass(owner) and issubclass(owner, Settings):
        return validate(owner, values, where="here")
    return check_options(owner, values, where="here")


@pytest.mark.parametrize("name", OWNERS)
def test_absurd_values_are_a_setting_or_one_sentence(name: str) -> None:
    owner = OWNERS[name]
    for field in fields_of(owner):
        for value in ABSURD:
            sentence = ""
            try:
                settings_of(owner, {field: value})
            except UserError as error:
                sentence = str(error)
            assert len(sentence) < 600, sentence


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("optim.steps=-1", "'optim.steps': must be at least 0, got -1"),
        ("optim.accumulate=0", "'optim.accumulate': must be at least 1, got 0"),
        ("optim.checkpoint_every=0", "'optim.checkpoint_every': must be at least 1, got 0"),
        ("optim.num_workers=500000000000", "'optim.num_workers': must be at most 1024, got 500000000000"),
        ("optim.learning_rate=.nan", "'optim.learning_rate': must be a finite number, got nan"),
        ("optim.learning_rate=1.0e+30", "'optim.learning_rate': must be at most 100, got 1e\\+30"),
        ("optim.steps=true", "'optim.steps': must be a number, got True"),
        ("optim.steps=²", "'optim.steps': Input should be a valid integer"),
        ("seed=-1", "'seed': must be at least 0, got -1"),
        ("seed=0x" + "f" * 5000, "must be a number of at most 63 bits, got a number of 20000 bits"),
        ("data.clip.scale=[2, 1]", r"must be \[least, most\] with least <= most, got \[2, 1\]"),
        ("data.clip.scale=[1.0e-9, 1.0e-9]", "must be at least 0.01, got 1e-09"),
        ("method.key_frame_interval=-1", "method: 'key_frame_interval': must be at least 1, got -1"),
        ("method=3", "'method' must be a mapping"),
        ("data=[]", "'data' must be a mapping"),
        ("data.train.0.name=[1]", None),
        ("method.name=3", "method: a name must be text, got 3"),
        ("task.name=[]", "task: a name must be text"),
        ("teacher.name=3", "'teacher.name': Input should be a valid string, got 3"),
        ("teacher.options={1: 2}", "'teacher.options': a key must be text, got 1"),
        ('out="a\\0b"', "'out': must be text"),
    ],
)
def test_absurd_recipes_name_field_bound_and_value(assignment: str, sentence: str | None, tmp_path: Path) -> None:
    recipe = {"method": {"name": "delta"}, "teacher": {}, "data": {"train": [{"name": "synthetic"}]}}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    if sentence is None:  # a data set is looked up when it is built
        load_recipe(tmp_path / "r.yaml", [assignment])
        return
    with pytest.raises(UserError, match=sentence):
        load_recipe(tmp_path / "r.yaml", [assignment])


def test_aliases_that_grow_without_end_are_refused(tmp_path: Path) -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    for text in ("\n".join(levels), "a: &a [*a]", "a: " + "[" * 40 + "]" * 40):
        (tmp_path / "r.yaml").write_text(text)
        with pytest.raises(UserError, match="levels deep"):
            load_recipe(tmp_path / "r.yaml")
