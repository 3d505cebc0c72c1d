"""Logins and signatures in URLs are shown to nobody."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensorium_data.errors import SourceError
from sensorium_data.redaction import hide_secrets

WORD = st.text("abcXYZ0123456789-_.%", min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:pass@host/F.zip", "https://…@host/F.zip"),
        ("s3://key@bucket/store: gone", "s3://…@bucket/store: gone"),
        ("https://host/F.zip?token=abc", "https://host/F.zip?token=…"),
        ("https://host/F.zip?part=1&X-Amz-Signature=abc&X-Amz-Credential=d/e", None),
        ("https://host/F.zip?part=1&page=2", "https://host/F.zip?part=1&page=2"),
        ("mail to me@host, see /data/a@b/store", "mail to me@host, see /data/a@b/store"),
        ("two: http://a:b@c/d and http://e:f@g/h", "two: http://…@c/d and http://…@g/h"),
    ],
)
def test_what_opens_doors_is_left_out(text: str, shown: str | None) -> None:
    expected = shown or "https://host/F.zip?part=1&X-Amz-Signature=…&X-Amz-Credential=…"
    assert hide_secrets(text) == expected
    assert hide_secrets(expected) == expected


@given(WORD, WORD, WORD)
def test_no_password_is_left_in_a_url(user: str, password: str, host: str) -> None:
    assert hide_secrets(f"see http://{user}:{password}@{host}/x now") == f"see http://…@{host}/x now"


def test_errors_hide_them_also_after_a_journey() -> None:
    error = SourceError("no answer", path="https://me:pass@host/F.zip", found="http://me:pass@host/F.zip?sig=1 refused")
    for one in (error, copy.copy(error)):
        assert str(one) == "https://…@host/F.zip: no answer: found http://…@host/F.zip?sig=… refused"
