"""YAML and key=value → validated settings. An unknown key is an error that shows the nearest name; no YAML is code."""

import dataclasses
import inspect
import reprlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import pydantic
import yaml

from vidistill.errors import UserError, nearest

T = TypeVar("T")
S = TypeVar("S", bound=pydantic.BaseModel)
Values = dict[str, Any]  # plain values by name, as YAML and JSON hold them


class Settings(pydantic.BaseModel):
    """Settings that refuse what they do not know."""

    model_config = pydantic.ConfigDict(extra="forbid", populate_by_name=True)


def read_yaml(path: str | Path) -> Values:
    """A YAML file as a dict. Errors: UserError where it is missing or is not a mapping."""
    try:
        with open(path, encoding="utf-8") as file:
            values = yaml.safe_load(file)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: the recipe cannot be read ({error}); check the path") from error
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: is not valid YAML ({reason}); correct the file") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: a recipe must be a mapping of keys to values, got {type(values).__name__}")
    return values


def override(values: Values, assignments: Sequence[str]) -> Values:
    """`values` with each `a.b=value` set; the value is read as YAML, a number in the path is an index into a list."""
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise UserError(f"'{assignment}': expected key=value")
        keys = path.split(".")
        place: Any = values
        try:
            for key in keys[:-1]:
                place = place[int(key)] if isinstance(place, list) else place.setdefault(key, {})
            last: Any = int(keys[-1]) if isinstance(place, list) else keys[-1]
            place[last] = yaml.safe_load(text)
        except (ValueError, IndexError, TypeError, AttributeError) as error:
            advice = "give keys divided by dots, and numbers from 0 for list entries, e.g. data.train.0.root"
            raise UserError(f"'{path}': does not exist in the recipe ({error}); {advice}") from error
        except yaml.YAMLError as error:
            raise UserError(f"'{assignment}': the value is not valid YAML; put it in quotes") from error
    return values


def validate(model: type[S], values: Mapping[str, object], *, where: str) -> S:
    """`values` as settings of type `model`. Errors: UserError that names the key and, if it is unknown, the nearest."""
    try:
        return model.model_validate(values)
    except pydantic.ValidationError as error:
        raise UserError(f"{where}: {_problem(error, _keys_beside(error, model))}") from None


def validate_json(model: type[S], text: str, *, where: str, advice: str) -> S:
    """A JSON text as settings of type `model`, with no value converted. Errors: as `validate`, and for other texts."""
    try:
        return model.model_validate_json(text, strict=True)
    except pydantic.ValidationError as error:
        raise UserError(f"{where} ({_problem(error, _keys_beside(error, model))}); {advice}") from None


def call(factory: Callable[..., T], options: Mapping[str, object], *, where: str) -> T:
    """`factory(**options)` with the options checked against its signature. Errors: as `validate`, and ValueErrors."""
    checked = check_options(factory, options, where=where)
    try:
        return factory(**checked)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None


def check_options(factory: Callable[..., object], options: Mapping[str, object], *, where: str) -> Values:
    """The options as `factory` takes them, in their types. Errors: UserError as `validate`."""
    known = _options_of(factory)
    try:
        checked = known.model_validate(options)
    except pydantic.ValidationError as error:
        raise UserError(f"{where}: {_problem(error, _keys_beside(error, known))}") from None
    return {name: getattr(checked, name) for name in checked.model_fields_set}


def _options_of(factory: Callable[..., object]) -> type[pydantic.BaseModel]:
    """Settings with the factory's parameters, of a function or a class."""
    hints = get_type_hints(factory.__init__ if inspect.isclass(factory) else factory)  # type: ignore[misc]
    fields: Values = {
        name: (hints.get(name, Any), ... if parameter.default is parameter.empty else parameter.default)
        for name, parameter in inspect.signature(factory).parameters.items()
    }
    config = pydantic.ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    return pydantic.create_model("Options", __config__=config, **fields)


def choose(registry: Mapping[str, T], name: str, *, where: str) -> T:
    """An entry of a registry. Errors: UserError with the nearest names."""
    if name not in registry:
        raise UserError(f"{where}: unknown name '{name}'; {nearest(name, registry)}")
    return registry[name]


def pick(registry: Mapping[str, T], values: Mapping[str, Any], *, where: str) -> tuple[T, Values]:
    """The entry of a registry that `{name: …, option: …}` names, and the options. Errors: as `choose`."""
    options = dict(values)
    return choose(registry, str(options.pop("name", "")), where=where), options


def _keys_beside(error: pydantic.ValidationError, settings: type) -> list[str]:
    """The keys that the settings know where the first problem is, to choose the nearest from."""
    keys: list[str] = []
    current: type | None = settings
    for part in error.errors()[0]["loc"]:
        fields = _fields_of(current)
        keys = list(fields) or keys
        if part in fields:
            current = _settings_in(fields[str(part)])
    return keys


def _fields_of(settings: type | None) -> dict[str, object]:
    """By name the annotation of each field of a settings class or a dataclass."""
    if settings is None:
        return {}
    if issubclass(settings, pydantic.BaseModel):
        return {name: field.annotation for name, field in settings.model_fields.items()}
    hints = get_type_hints(settings)
    return {name: hints[name] for name in inspect.signature(settings).parameters}


def _settings_in(annotation: object) -> type | None:
    """The settings class or dataclass inside an annotation such as `list[Source] | None`."""
    if inspect.isclass(annotation) and (
        issubclass(annotation, pydantic.BaseModel) or dataclasses.is_dataclass(annotation)
    ):
        return annotation
    inner = (_settings_in(part) for part in getattr(annotation, "__args__", ()))
    return next((settings for settings in inner if settings is not None), None)


def _problem(error: pydantic.ValidationError, keys: Sequence[str]) -> str:
    """The first of the problems as a phrase; `keys`: those that are known beside an unknown one."""
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "json_invalid":
        return problem["msg"]
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"unknown key '{where}'; {nearest(str(problem['loc'][-1]), keys)}"
    if problem["type"] in ("dataclass_type", "model_type", "dict_type"):
        return f"'{where}' must be a mapping such as {{key: value}}, got {reprlib.repr(problem['input'])}"
    return f"'{where}': {problem['msg'].removeprefix('Value error, ')}, got {reprlib.repr(problem['input'])}"


def whole_number(text: str) -> int | None:
    """The number that up to nine plain digits are; None for any other text, such as `²`, `-1` or a thousand digits."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 9 else None


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
