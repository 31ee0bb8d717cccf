"""YAML and key=value → validated settings. An unknown key is an error that shows the nearest name; no YAML is code.

Every number of a setting has a least and a most value, in its type: `Count`, `Share`, … below, or one of its own made
with `whole` or `real`. `validate`, `call` and `check_options` hold them; `check_numbers` does in a dataclass.
"""

import dataclasses
import functools
import inspect
import math
import reprlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import pydantic
import yaml

from vidistill.errors import UserError, nearest

T = TypeVar("T")
S = TypeVar("S", bound=pydantic.BaseModel)
Values = dict[str, Any]  # plain values by name, as YAML and JSON hold them

LONGEST_FILE = 2**20  # bytes of a recipe
MOST_VALUES, MOST_LEVELS = 10_000, 32  # of a recipe: all values with what aliases repeat, and lists in lists


def _no_switch(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


def whole(least: int, most: int) -> Any:
    """What makes an int of a setting bounded: `Annotated[int, *whole(1, 9)]`."""
    return pydantic.BeforeValidator(_no_switch), pydantic.Field(ge=least, le=most)


def real(least: float, most: float) -> Any:
    """What makes a float of a setting bounded, and finite."""
    return pydantic.BeforeValidator(_no_switch), pydantic.Field(ge=least, le=most, allow_inf_nan=False)


Whole = Annotated[int, *whole(0, 2**31 - 1)]
Count = Annotated[int, *whole(1, 2**31 - 1)]
Pixels = Annotated[int, *whole(1, 2**14)]  # a side of a frame
Share = Annotated[float, *real(0, 1)]
Weight = Annotated[float, *real(0, 1e6)]  # a factor
Positive = Annotated[float, *real(1e-6, 1e6)]
LearningRate = Annotated[float, *real(0, 100)]


class Settings(pydantic.BaseModel):
    """Settings that refuse what they do not know."""

    model_config = pydantic.ConfigDict(extra="forbid", populate_by_name=True)


class _Loader(yaml.SafeLoader):
    """Refuses a key that comes twice, where YAML's readers silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        twice = next((key for place, key in enumerate(keys) if key in keys[:place]), None)
        if twice is not None:
            raise yaml.YAMLError(f"the key '{twice}' comes twice in line {node.start_mark.line + 1} or after it")
        return super().construct_mapping(node, deep)


def parse_yaml(text: str) -> Any:
    """What YAML says, as plain values. Errors: ValueError where it is not valid."""
    try:
        return yaml.load(text, _Loader)
    except RecursionError as error:
        raise ValueError("lists and mappings lie too deep in one another") from error
    except (yaml.YAMLError, AttributeError, TypeError, OverflowError) as error:  # the latter of a broken !!tag
        raise ValueError(" ".join(str(error).split())) from error


def read_yaml(path: str | Path) -> Values:
    """A YAML file as a dict. Errors: UserError where it is missing or is not a mapping."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(LONGEST_FILE + 1)
    except (OSError, ValueError) as error:  # ValueError: another encoding, or a path with a NUL
        raise UserError(f"{path}: the recipe cannot be read ({error}); check the path") from error
    if len(text) > LONGEST_FILE:
        raise UserError(f"{path}: must be at most {LONGEST_FILE} characters long; give a recipe")
    try:
        values = parse_yaml(text)
    except ValueError as error:
        raise UserError(f"{path}: is not valid YAML ({error}); correct the file") from error
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
            value = parse_yaml(text)
        except ValueError as error:
            raise UserError(f"'{assignment}': the value is not valid YAML; put it in quotes") from error
        try:
            for key in keys[:-1]:
                place = place[int(key)] if isinstance(place, list) else place.setdefault(key, {})
            last: Any = int(keys[-1]) if isinstance(place, list) else keys[-1]
            place[last] = value
        except (ValueError, IndexError, TypeError, AttributeError) as error:
            advice = "give keys divided by dots, and numbers from 0 for list entries, e.g. data.train.0.root"
            raise UserError(f"'{path}': does not exist in the recipe ({error}); {advice}") from error
    return values


def split_options(text: str) -> list[str]:
    """`a,b=[1,2],c="x,y"` at its commas, but for those within brackets and quotes."""
    parts, quote, depth = [""], "", 0
    for place, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'" and parts[-1].endswith(("=", "[", "{", ",", " ", ":")) and letter in text[place + 1 :]:
            quote = letter  # one within a word is an apostrophe
        if not quote and (depth or parts[-1].endswith("=")):  # elsewhere brackets are letters of a name
            depth += (letter in "[{") - (letter in "]}")
        if letter == "," and not quote and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def validate(model: type[S], values: Mapping[str, object], *, where: str) -> S:
    """`values` as settings of type `model`. Errors: UserError that names the key and, if it is unknown, the nearest."""
    check_plain(values, where=where)
    try:
        return model.model_validate(values)
    except pydantic.ValidationError as error:
        raise UserError(f"{where}: {_problem(error, _keys_beside(error, model))}") from None


def check_plain(values: object, *, where: str) -> None:
    """Checks what no setting can hold, whatever its type: aliases and lists without end, NaN, unusable text.

    Raises:
        UserError: it names the place.
    """
    count, waiting = 0, [((), values)]  # type: tuple[int, list[tuple[tuple[object, ...], object]]]
    while waiting:
        path, value = waiting.pop()
        count += 1
        place = f"{where}: '{'.'.join(map(_shown, path))}'" if path else where
        if len(path) > MOST_LEVELS or count > MOST_VALUES:
            raise UserError(
                f"{where}: must have at most {MOST_VALUES} values, {MOST_LEVELS} levels deep; write it without aliases"
            )
        if isinstance(value, Mapping):
            for key in value:
                if not isinstance(key, str):
                    raise UserError(f"{place}: a key must be text, got {_shown(key)}; put it in quotes")
            waiting += [
                ((*path, part), item) for key, item in value.items() for part, item in ((key, item), (key, key))
            ]
        elif isinstance(value, list | tuple):
            waiting += [((*path, number), item) for number, item in enumerate(value)]
        elif isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{place}: must be a finite number, got {value}")
        elif isinstance(value, int) and abs(value) >= 2**63:
            raise UserError(f"{place}: must be a number of at most 63 bits, got {_shown(value)}")
        elif isinstance(value, str) and not _is_usable(value):
            raise UserError(f"{place}: must be text of at most 4096 characters without control characters")


def _is_usable(text: str) -> bool:
    """Whether a file could have this name, or a network."""
    is_unicode = not any("\ud800" <= letter <= "\udfff" for letter in text)
    return len(text) <= 4096 and is_unicode and not any(ord(letter) < 32 and letter not in "\t\n" for letter in text)


def _shown(value: object) -> str:
    """A value in an error's sentence, shortened: numbers of thousands of digits cannot be printed at all."""
    if isinstance(value, int) and abs(value) >= 2**64:
        return f"a number of {value.bit_length()} bits"
    return value if isinstance(value, str) else reprlib.repr(value)


def check_numbers(settings: Any) -> None:
    """Checks the bounded fields of a dataclass, in its `__post_init__`. Errors: ValueError that names the field."""
    for name, adapter in _bounded_fields(settings.__class__).items():
        try:
            adapter.validate_python(getattr(settings, name))
        except pydantic.ValidationError as error:
            raise ValueError(f"{name} {_what_is_wrong(error.errors()[0])}") from None


@functools.cache
def _bounded_fields(settings: Any) -> dict[str, pydantic.TypeAdapter[Any]]:
    hints = get_type_hints(settings, include_extras=True)
    fields = {field.name: hints[field.name] for field in dataclasses.fields(settings) if field.init}  # type: ignore[arg-type]
    return {
        name: pydantic.TypeAdapter(hint)
        for name, hint in fields.items()
        if any(get_origin(part) is Annotated for part in parts_of_hint(hint))
    }


def parts_of_hint(hint: Any) -> Iterator[Any]:
    """A type and those inside it: of `tuple[Annotated[int, …], ...] | None` the tuple, the annotated int and None."""
    yield hint
    if get_origin(hint) is not Annotated:
        for part in get_args(hint):
            yield from parts_of_hint(part)


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
    check_plain(options, where=where)
    try:
        checked = known.model_validate(options)
    except pydantic.ValidationError as error:
        raise UserError(f"{where}: {_problem(error, _keys_beside(error, known))}") from None
    return {name: getattr(checked, name) for name in checked.model_fields_set}


@functools.cache
def _options_of(factory: Any) -> type[pydantic.BaseModel]:
    """Settings with the factory's parameters, of a function or a class."""
    hints = get_type_hints(
        factory.__init__ if inspect.isclass(factory) else factory,  # type: ignore[misc]
        include_extras=True,
    )
    fields: Values = {
        name: (hints.get(name, Any), ... if parameter.default is parameter.empty else parameter.default)
        for name, parameter in inspect.signature(factory).parameters.items()
    }
    config = pydantic.ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    return pydantic.create_model("Options", __config__=config, **fields)


def choose(registry: Mapping[str, T], name: str, *, where: str) -> T:
    """An entry of a registry. Errors: UserError with the nearest names."""
    if not isinstance(name, str):  # of an entry in a recipe
        raise UserError(f"{where}: a name must be text, got {_shown(name)}; {nearest('', registry)}")
    if name not in registry:
        raise UserError(f"{where}: unknown name '{name}'; {nearest(name, registry)}")
    return registry[name]


def pick(registry: Mapping[str, T], values: Mapping[str, Any], *, where: str) -> tuple[T, Values]:
    """The entry of a registry that `{name: …, option: …}` names, and the options. Errors: as `choose`."""
    options = dict(values)
    return choose(registry, options.pop("name", ""), where=where), options


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
        return f"'{where}' must be a mapping such as {{key: value}}, got {_quoted(problem['input'])}"
    return f"'{where}': {_what_is_wrong(problem)}"


_BOUNDS = {"greater_than_equal": ("ge", "at least"), "less_than_equal": ("le", "at most")}


def _what_is_wrong(problem: Any) -> str:
    """Of one of pydantic's problems: what was expected, and what was given."""
    if problem["type"] in _BOUNDS:
        key, words = _BOUNDS[problem["type"]]
        expected = f"must be {words} {problem['ctx'][key]:g}"
    else:
        expected = problem["msg"].removeprefix("Value error, ")
    return expected if ", got " in expected else f"{expected}, got {_quoted(problem['input'])}"


def _quoted(value: object) -> str:
    return reprlib.repr(value) if isinstance(value, str) else _shown(value)


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
