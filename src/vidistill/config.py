"""YAML and key=value → validated settings. An unknown key is an error that shows the nearest name; no YAML is code."""

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import pydantic
import yaml

from vidistill.errors import UserError, nearest

T = TypeVar("T")
Values = dict[str, Any]  # plain values by name, as YAML and JSON hold them
S = TypeVar("S", bound="Settings")


class Settings(pydantic.BaseModel):
    """Settings that refuse what they do not know."""

    model_config = pydantic.ConfigDict(extra="forbid", populate_by_name=True)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file as a dict. Errors: UserError where it is missing or is not a mapping."""
    try:
        with open(path, encoding="utf-8") as file:
            values = yaml.safe_load(file)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: the recipe cannot be read ({error})") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: is not valid YAML ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: a recipe is a mapping of keys to values")
    return values


def override(values: dict[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """`values` with each `a.b=value` set; the value is read as YAML, a number in the path is an index into a list."""
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise UserError(f"'{assignment}' is not key=value")
        keys = path.split(".")
        place: Any = values
        try:
            for key in keys[:-1]:
                place = place[int(key)] if isinstance(place, list) else place.setdefault(key, {})
            last: Any = int(keys[-1]) if isinstance(place, list) else keys[-1]
            place[last] = yaml.safe_load(text)
        except (ValueError, IndexError, TypeError, AttributeError) as error:
            raise UserError(f"'{path}' is not a place in the recipe ({error})") from error
        except yaml.YAMLError as error:
            raise UserError(f"'{assignment}': the value is not valid YAML") from error
    return values


def validate(model: type[S], values: dict[str, Any], *, where: str) -> S:
    """`values` as settings of type `model`. Errors: UserError that names the key and, if it is unknown, the nearest."""
    try:
        return model.model_validate(values)
    except pydantic.ValidationError as error:
        raise UserError(f"{where}: {_sentence(error, model)}") from None


def call(factory: Callable[..., T], options: dict[str, Any], *, where: str) -> T:
    """`factory(**options)` with the options checked against its signature. Errors: as `validate`, and ValueErrors."""
    checked = check_options(factory, options, where=where)
    try:
        return factory(**checked)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None


def check_options(factory: Callable[..., Any], options: dict[str, Any], *, where: str) -> dict[str, Any]:
    """The options as `factory` takes them, in their types. Errors: UserError as `validate`."""
    try:
        checked = _options_of(factory).model_validate(options)
    except pydantic.ValidationError as error:
        raise UserError(f"{where}: {_first(error, list(inspect.signature(factory).parameters))}") from None
    return {name: getattr(checked, name) for name in checked.model_fields_set}


def _options_of(factory: Callable[..., Any]) -> type[pydantic.BaseModel]:
    """Settings with the factory's parameters, of a function or a class."""
    hints = get_type_hints(factory.__init__ if inspect.isclass(factory) else factory)  # type: ignore[misc]
    fields: dict[str, Any] = {
        name: (hints.get(name, Any), ... if parameter.default is parameter.empty else parameter.default)
        for name, parameter in inspect.signature(factory).parameters.items()
    }
    config = pydantic.ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    return pydantic.create_model("Options", __config__=config, **fields)


def choose(door: dict[str, T], name: str, *, where: str) -> T:
    """An entry of a door's dict. Errors: UserError with the nearest names."""
    if name not in door:
        raise UserError(f"{where}: there is no '{name}'; {nearest(name, door)}")
    return door[name]


def pick(door: dict[str, T], values: dict[str, Any], *, where: str) -> tuple[T, dict[str, Any]]:
    """The entry of a door's dict that `{name, …options}` names, and the options. Errors: as `choose`."""
    options = dict(values)
    return choose(door, str(options.pop("name", "")), where=where), options


def _sentence(error: pydantic.ValidationError, model: type[pydantic.BaseModel]) -> str:
    choices: list[str] = []
    current: Any = model
    for part in error.errors()[0]["loc"]:
        fields = getattr(current, "model_fields", {})
        choices = list(fields) or choices
        current = _settings_in(fields[part].annotation) if part in fields else current
    return _first(error, choices)


def _settings_in(annotation: Any) -> Any:
    """The settings class inside an annotation such as `list[Source] | None`."""
    if hasattr(annotation, "model_fields"):
        return annotation
    found = [_settings_in(part) for part in getattr(annotation, "__args__", ())]
    return next((part for part in found if part is not None), None)


def _first(error: pydantic.ValidationError, choices: list[str]) -> str:
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"unknown key '{where}'; {nearest(str(problem['loc'][-1]), choices)}"
    return f"'{where}': {problem['msg'].removeprefix('Value error, ')}, not {problem['input']!r}"


def plain(settings: Any) -> Any:
    """The settings, a dataclass or a tree of them, as dicts, lists, texts and numbers. Private fields stay out."""
    if dataclasses.is_dataclass(settings):
        public = [field.name for field in dataclasses.fields(settings) if field.init]
        return {name: plain(getattr(settings, name)) for name in public}
    if isinstance(settings, dict):
        return {name: plain(value) for name, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [plain(value) for value in settings]
    return str(settings) if isinstance(settings, Path) else settings
