"""The table of sentences knows every error that the request models can raise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import pytest
from pydantic import BaseModel, ValidationError

from imagegen.errors import RequestError
from imagegen.generation import StartRequest
from imagegen.web.field_problems import SENTENCES, field_problem
from imagegen.web.legacy import LegacyStartRequest
from imagegen.web.parsing import check_query, validate

MODELS = (StartRequest, LegacyStartRequest)

RAISED = {
    "model": set[str](),  # validate() refuses what is no object
    "model-fields": {"missing", "extra_forbidden"},
    "model-field": set[str](),
    "default": set[str](),
    "nullable": set[str](),
    "definitions": set[str](),
    "str": {"string_type"},
    "int": {"int_type", "int_from_float", "finite_number"},
    "dict": {"dict_type"},
    "literal": {"literal_error"},
}
"""What each node of a core schema raises in strict mode."""
BY_CONSTRAINT = {
    ("str", "min_length"): "string_too_short",
    ("str", "max_length"): "string_too_long",
    ("str", "pattern"): "string_pattern_mismatch",
    ("int", "ge"): "greater_than_equal",
    ("int", "le"): "less_than_equal",
    ("dict", "max_length"): "too_long",
}
OF_FUNCTION = {"_not_blank": {"blank", "nul"}, "_whole": set[str](), "RequestBody._without_nulls": set[str]()}
"""What our validators raise. A new validator needs a row."""
NO_CONSTRAINT = {
    *("type", "strict", "ref", "metadata", "serialization", "schema", "fields", "cls", "config", "model_name"),
    *("default", "default_factory", "default_factory_takes_data", "copy_default", "validate_default", "expected"),
    *(
        "keys_schema",
        "values_schema",
        "validation_alias",
        "serialization_alias",
        "function",
        "custom_init",
        "root_model",
    ),
    *("computed_fields", "extra_behavior", "serialization_exclude", "frozen", "post_init", "definitions", "mode"),
    "model_construct",
}

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, 10**30, float("inf"), "", " ", "\n", "x", "1", "x" * 40_000, "\u0661"),
    *([], [1], {}, {"k": 1}, {"k": None}, {"": ""}, {"k" * 65: ""}, {"k": "v" * 513}, {"k": {}}),
    {str(number): "" for number in range(17)},
)
ANY_TEXT = (None, " ", "\n", "x", "1", "\u0661")
RIGHT: Mapping[str, tuple[Any, ...]] = {
    "prompt": ("x", "1", "\u0661"),
    "n": (None,),
    "size": (None,),
    "quality": ANY_TEXT,
    "output_format": ANY_TEXT,
    "output_compression": (None, 0),
    "background": ANY_TEXT,
    "style": ANY_TEXT,
    "model": ANY_TEXT,
    "user": ANY_TEXT,
    "metadata": (None, {}),
    "timeoutSeconds": (None,),
}
"""The values of `VALUES` that a field accepts."""
WORDS = ("should", "Input", "valid ", "String", "dictionary", "greater", "pydantic", "openapi.json")
"""Of pydantic, and of the fallback of our own table."""


def raised_by(node: object) -> Iterator[str]:
    """The error types of a core schema. Fails for a node, a constraint or a validator that this test does not know."""
    if isinstance(node, list | tuple):
        for inner in cast("list[object]", node):
            yield from raised_by(inner)
    if not isinstance(node, dict):
        return
    known = cast("Mapping[str, Any]", node)
    kind = known.get("type")
    if isinstance(kind, str):
        if kind.startswith("function-"):
            yield from OF_FUNCTION[known["function"]["function"].__qualname__]
        else:
            yield from RAISED[kind]
        for constraint in known.keys() - NO_CONSTRAINT:
            yield BY_CONSTRAINT[kind, constraint]
    for name, inner in known.items():
        # Fields stand in a mapping without a type, where "metadata" is a name like any other.
        if not isinstance(kind, str) or name not in ("metadata", "serialization", "config", "function"):
            yield from raised_by(inner)


@pytest.mark.parametrize("model", MODELS)
def test_table_has_every_error_that_the_model_can_raise(model: type[BaseModel]) -> None:
    types = set(raised_by(model.__pydantic_core_schema__))
    assert {"missing", "extra_forbidden", "blank", "int_type", "string_too_long"} <= types
    assert types <= SENTENCES.keys()


def test_table_has_no_error_that_no_model_can_raise() -> None:
    assert SENTENCES.keys() == {kind for model in MODELS for kind in raised_by(model.__pydantic_core_schema__)}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:20])
def test_every_message_is_in_our_own_words(model: type[BaseModel], value: object) -> None:
    for name in (str(found.alias) for found in model.model_fields.values()):
        error = refusal({"prompt": "x", name: value}, model)
        # By their text, because False == 0 and True == 1.
        is_right = repr(value) in map(repr, RIGHT[name])
        assert (error is None) is is_right, (name, error)
        if error is None:
            continue
        assert error.code == "invalidPayload"
        assert error.message.startswith(name)
        assert len(error.message) < 400
        assert not [word for word in WORDS if word in error.message], error.message
        assert set(error_types({"prompt": "x", name: value}, model)) <= SENTENCES.keys()


def refusal(body: dict[str, Any], model: type[BaseModel]) -> RequestError | None:
    try:
        validate(body, model)
    except RequestError as error:
        return error
    return None


def error_types(body: dict[str, Any], model: type[BaseModel]) -> list[str]:
    with pytest.raises(ValidationError) as raised:
        model.model_validate(body)
    return [one["type"] for one in raised.value.errors()]


@pytest.mark.parametrize("raw", ["\x85", "\u2028", "\x7f", "\u202e", "\n"])
def test_name_and_value_stay_on_one_line(raw: str) -> None:
    error = refusal({"prompt": "x", f"a{raw}b": 1, "size": f"1{raw}2"}, StartRequest)
    assert error
    assert error.message.isprintable()
    name = f"a{raw.encode('unicode_escape').decode()}b"
    assert name in [problem.field for problem in error.problems]
    with pytest.raises(RequestError) as refused:
        check_query({f"a{raw}b": "1"})
    assert [problem.field for problem in refused.value.problems] == [name]


def test_unknown_error_type_does_not_raise() -> None:
    found = {"type": "a_new_type", "loc": ("n",), "input": 0, "msg": "Input should be"}
    problem = field_problem(found, StartRequest.model_json_schema())
    assert (problem.field, problem.message) == ("n", "0; use 1 to 10.")


@pytest.mark.parametrize("letter", ["f", "\U000e0001"])
def test_most_problems_have_the_size_of_an_answer(letter: str) -> None:
    body = {"prompt": "x"} | {f"{letter * 500}{number}": 1 for number in range(500)}
    with pytest.raises(RequestError) as refused:
        validate(body, StartRequest)
    assert len(refused.value.problems) == 20
    assert len(refused.value.message) < 10_000
