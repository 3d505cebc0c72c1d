"""What is said of documents that are no JSON, or other JSON than expected."""

from __future__ import annotations

import pytest

from sensorium_data.files import describe_damage, parse_json


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "no content"),
        (" \n", "no content"),
        ('{\n"a": 1,\n}', "invalid JSON in line 3"),
        (b'{"a": "\xff"}', "bytes that are not text in UTF-8"),
        ("[" * 100_000, "JSON that is nested too deeply"),
    ],
)
def test_what_is_no_json_is_told_without_a_parsers_words(text: str | bytes, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}$"):
        parse_json(text)


def test_values_of_another_kind_are_told_without_pythons_words() -> None:
    with pytest.raises(KeyError) as lacking:
        parse_json("{}")["sessions"]
    with pytest.raises(TypeError) as other:
        parse_json("[]")["sessions"]
    assert describe_damage(lacking.value) == "no sessions"
    assert describe_damage(other.value) == "other values than expected"
