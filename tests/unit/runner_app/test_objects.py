"""The runner's rule for texts and objects is the broker's."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker_app.dialects import objects as of_the_broker
from runner_app.clients.objects import kept, shown

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(database=None, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.sampled_from(["text", "a"]), VALUES | VALUES.map(json.dumps)))
def test_an_object_is_kept_as_the_broker_keeps_it(value: dict[str, Any]) -> None:
    assert kept(value) == of_the_broker.kept(value, status=400)
    assert shown(kept(value)) == value


@pytest.mark.parametrize(
    "value", [{"text": ""}, {"text": '{"a": 1}'}, {"text": "x"}, {"text": 1}, {"text": "x", "y": 1}]
)
def test_what_would_be_shown_otherwise_is_kept_as_json(value: dict[str, Any]) -> None:
    assert kept(value) == of_the_broker.kept(value, status=400)
    assert shown(kept(value)) == value


@pytest.mark.parametrize("text", ["", '{"text": "x"}', '{"a": 1e308}', '{"a": "\\ud83d\\ude00"}'])
def test_a_text_is_shown_as_the_broker_shows_it(text: str) -> None:
    assert shown(text) == of_the_broker.shown(text)


@pytest.mark.parametrize(
    "text",
    [
        "hello",
        "[1]",
        "1",
        '{"a": ',
        '{"a": NaN}',
        '{"a": 1e999}',
        '{"a": "\\ud800"}',
        '{"\\ud800": 1}',
        '{"a": "\ud800"}',
    ],
)
def test_what_no_object_may_be_is_text(text: str) -> None:
    assert shown(text) == of_the_broker.shown(text) == {"text": text}


@pytest.mark.parametrize("depth", [30, 31, 32, 33, 64, 100, 1000, 100_000])
@pytest.mark.parametrize("form", [('{"a": ', "}"), ("[", "]")])
def test_an_object_is_nested_as_deeply_as_at_the_broker(form: tuple[str, str], depth: int) -> None:
    text = f'{{"a": {form[0] * (depth - 1)}1{form[1] * (depth - 1)}}}'
    assert shown(text) == of_the_broker.shown(text) == ({"text": text} if depth > 30 else json.loads(text))
