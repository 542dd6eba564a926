"""Texts as objects, and back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker_app.dialects.objects import kept, shown
from broker_app.errors import MalformedError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", {}),
        ("hello", {"text": "hello"}),
        ("two\nlines", {"text": "two\nlines"}),
        ('{"command": "ls"}', {"command": "ls"}),
        ("[1]", {"text": "[1]"}),
        ("1", {"text": "1"}),
        ('{"a": ', {"text": '{"a": '}),
        ('{"a": NaN}', {"text": '{"a": NaN}'}),
        ('{"a": 1e999}', {"text": '{"a": 1e999}'}),
        ('{"a": "\\ud800"}', {"text": '{"a": "\\ud800"}'}),
    ],
)
def test_a_kept_text_is_shown_as_an_object(text: str, value: dict[str, Any]) -> None:
    assert shown(text) == value
    assert kept(value, status=400) == text


@pytest.mark.parametrize("form", [('{"a": ', "}"), ("[", "]")])
def test_an_object_is_nested_no_deeper_than_there_is_room_for(form: tuple[str, str]) -> None:
    def text(depth: int) -> str:
        return f'{{"a": {form[0] * (depth - 1)}1{form[1] * (depth - 1)}}}'

    value = json.loads(text(30))
    assert kept(value, status=400) == text(30)
    assert shown(text(30)) == value
    for depth in (31, 32, 33, 64, 100, 1000, 100_000):
        assert shown(text(depth)) == {"text": text(depth)}
    for depth in (31, 32, 33, 64, 100):
        with pytest.raises(MalformedError, match="nested") as caught:
            kept(json.loads(text(depth)), status=422)
        assert caught.value.status == 422


@pytest.mark.parametrize(
    "value", [{"text": ""}, {"text": '{"a": 1}'}, {"text": '{"text": "x"}'}, {"text": 1}, {"text": "x", "y": 1}]
)
def test_what_would_be_shown_otherwise_is_kept_as_json(value: dict[str, Any]) -> None:
    assert json.loads(kept(value, status=400)) == value
    assert shown(kept(value, status=400)) == value


@settings(database=None, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.sampled_from(["text", "a"]), VALUES | st.text().map(lambda text: f'{{"text": "{text}"}}')))
def test_an_object_comes_back_as_it_was(value: dict[str, Any]) -> None:
    assert shown(kept(value, status=400)) == value
