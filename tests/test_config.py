from pathlib import Path

import pytest

from vidistill.config import Settings, call, choose, override, read_yaml, split_options, validate
from vidistill.errors import UserError, nearest
from vidistill.runs.recipe import Recipe, load_recipe, save_recipe


class Inner(Settings):
    steps: int = 1


class Outer(Settings):
    optim: Inner = Inner()
    sources: list[Inner] = []


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"optm": {}}, "unknown key 'optm'; did you mean optim"),
        ({"optim": {"step": 3}}, r"unknown key 'optim\.step'; did you mean steps"),
        ({"sources": [{"stepps": 3}]}, r"unknown key 'sources\.0\.stepps'; did you mean steps"),
        ({"optim": {"steps": "many"}}, r"'optim\.steps': Input should be a valid integer.*'many'"),
    ],
)
def test_mistakes_are_named(values, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        validate(Outer, values, where="recipe")


def test_overrides_reach_into_lists_and_read_values_as_yaml() -> None:
    values = {"data": {"train": [{"name": "a"}]}}
    override(values, ["data.train.0.frames=[0, 5]", "optim.steps=7", "seed=3"])
    assert values == {"data": {"train": [{"name": "a", "frames": [0, 5]}]}, "optim": {"steps": 7}, "seed": 3}


@pytest.mark.parametrize("assignment", ["steps", "data.train.x=1", "data.train.7.a=1", "seed.deep=1", "seed=[1"])
def test_impossible_overrides(assignment: str) -> None:
    with pytest.raises(UserError):
        override({"data": {"train": []}, "seed": 1}, [assignment])


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("videos,root=x,frames=[0,5]", ["videos", "root=x", "frames=[0,5]"]),
        ("a,b=[[0,1],[2,3]],c={x: [1,2], y: 3},d=4", ["a", "b=[[0,1],[2,3]]", "c={x: [1,2], y: 3}", "d=4"]),
        ("a,root='x,y',b=it's,c=1", ["a", "root='x,y'", "b=it's", "c=1"]),
        ("a,root=x[1,frames=[0,5]", ["a", "root=x[1", "frames=[0,5]"]),
        ("a,b=1]],c=2", ["a", "b=1]]", "c=2"]),
        ("a", ["a"]),
    ],
)
def test_commas_within_brackets_and_quotes_belong_to_a_value(text: str, parts: list[str]) -> None:
    assert split_options(text) == parts


def test_factories_are_called_with_checked_options() -> None:
    def factory(*, reduction: int = 4) -> int:
        return reduction

    assert call(factory, {"reduction": "8"}, where="method") == 8
    with pytest.raises(UserError, match="method: unknown key 'reducton'; did you mean reduction"):
        call(factory, {"reducton": 8}, where="method")


def test_registries_show_the_nearest() -> None:
    with pytest.raises(UserError, match="method: unknown name 'detla'; did you mean delta"):
        choose({"delta": 1, "supervised": 2}, "detla", where="method")
    assert nearest("zzz", ["a", "b"]) == "choose one of: a, b"


@pytest.mark.parametrize(
    "text",
    [
        "- a\n- b",
        "a: [",
        "",
        "a: !!python/object/apply:os.system ['true']",
        "a: 1\na: 2",
        "a: " + "[" * 5000,
        "a: !!timestamp x",
        "a: !!int x",
        "a: 2020-99-99",
        "a: " + "9" * 5000,
    ],
)
def test_files_that_are_no_recipe(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(UserError):
        read_yaml(tmp_path / "r.yaml")
    with pytest.raises(UserError, match="cannot be read"):
        read_yaml(tmp_path / "missing.yaml")


def test_a_resolved_recipe_reads_back_the_same(tmp_path: Path) -> None:
    recipe = Recipe(method={"name": "delta"}, seed=3)
    save_recipe(recipe, tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml") == recipe
