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
    assert kept(value) == of_the_broker.kept(value)
    assert shown(kept(value)) == value


@pytest.mark.parametrize(
    "value", [{"text": ""}, {"text": '{"a": 1}'}, {"text": "x"}, {"text": 1}, {"text": "x", "y": 1}]
)
def test_what_would_be_shown_otherwise_is_kept_as_json(value: dict[str, Any]) -> None:
    assert kept(value) == of_the_broker.kept(value)
    assert shown(kept(value)) == value


@pytest.mark.parametrize(
    "text",
    ["", "hello", "[1]", "1", '{"a": ', '{"a": NaN}', '{"text": "x"}']
    + ['{"a": ' * depth + "1" + "}" * depth for depth in (31, 32, 33, 34, 100_000)]
    + ['{"a": ' + "[" * depth + "]" * depth + "}" for depth in (31, 32, 33)],
)
def test_a_text_is_shown_as_the_broker_shows_it(text: str) -> None:
    assert shown(text) == of_the_broker.shown(text)


def test_a_number_that_json_cannot_say_again_is_text() -> None:
    assert shown('{"a": 1e999}') == {"text": '{"a": 1e999}'}
