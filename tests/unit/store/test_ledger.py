from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sensorium_data.errors import StoreError
from sensorium_data.files import LocalObjects, StoredObject, digest_bytes
from sensorium_data.sessions import find_session
from sensorium_data.store import LEDGER_KEY, Ledger, StatisticsRecord, TrialRecord, merge_objects, read_ledger
from sensorium_data.store.ledger import TrialFacts


def make_record() -> TrialRecord:
    rng = np.random.default_rng(0)
    return TrialRecord(
        trial=17,
        n_frames=20,
        broken="",
        responses_withheld=True,
        largest_absolute_error={"videos": 1e-6, "responses": 0.0},
        members={"videos": (7, 20), "responses": (8, 21)},
        objects={"videos/c/3/0/0/0": StoredObject.of(b"abc")},
        behavior=rng.random((2, 24), np.float32),
        pupil_center=np.full((2, 24), np.nan, np.float32),
        signature=rng.random((20, 34), np.float32),
    )


def make_ledger(metadata: bytes = b"{}") -> Ledger:
    objects = {"zarr.json": StoredObject.of(metadata), "videos/c/0": StoredObject.of(b"1234")}
    of_videos = {"videos/c/0": objects["videos/c/0"]}
    facts = TrialFacts(3, 20, "", False, {"videos": 0.5}, {"videos": (1, 2)}, of_videos)
    return Ledger(objects, {3: facts}, StatisticsRecord(24, {"videos": 0.5}, {"videos/mean": (3, 4)}, {}))


def test_digest_is_the_sha256_of_the_bytes() -> None:
    assert digest_bytes(b"abc") == hashlib.sha256(b"abc").hexdigest()
    assert StoredObject.of(memoryview(np.arange(3))) == StoredObject(
        24, digest_bytes(np.arange(3).tobytes()), zlib.crc32(np.arange(3).tobytes())
    )


def test_trial_record_survives_its_file() -> None:
    record = make_record()
    read = TrialRecord.from_bytes(record.to_bytes())
    for name in (
        "trial",
        "n_frames",
        "broken",
        "responses_withheld",
        "largest_absolute_error",
        "members",
        "objects",
        "valid",
    ):
        assert getattr(read, name) == getattr(record, name)
    for name in ("behavior", "pupil_center", "signature"):
        np.testing.assert_array_equal(getattr(read, name), getattr(record, name))


def test_statistics_record_survives_its_file() -> None:
    record = StatisticsRecord(324, {"videos": 0.5}, {"videos/mean": (1, 2)}, {"a": StoredObject.of(b"x")})
    assert StatisticsRecord.from_bytes(record.to_bytes()) == record


@pytest.mark.parametrize("kind", [TrialRecord, StatisticsRecord])
@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b"PK\x03\x04", b"\x93NUMPY", b"\xff\xfe"])
def test_a_damaged_record_is_a_value_error(kind: type[TrialRecord] | type[StatisticsRecord], data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # any message: the record then counts as missing
        kind.from_bytes(data)


def test_a_record_cut_short_anywhere_is_noticed() -> None:
    data = make_record().to_bytes()
    for n_bytes in range(0, len(data), 97):
        with pytest.raises(ValueError):  # noqa: PT011
            TrialRecord.from_bytes(data[:n_bytes])


def test_a_record_with_a_flipped_bit_is_noticed_or_equal() -> None:
    data = make_record().to_bytes()
    for position in range(0, len(data), 211):
        flipped = bytearray(data)
        flipped[position] ^= 1
        try:
            read = TrialRecord.from_bytes(bytes(flipped))
        except ValueError:
            continue
        np.testing.assert_array_equal(read.behavior, make_record().behavior)
        assert read.objects == make_record().objects


def test_ledger_survives_its_file_and_lists_size_and_digest() -> None:
    ledger = make_ledger()
    data = ledger.to_bytes()
    assert json.loads(data)["objects"]["videos/c/0"] == [4, hashlib.sha256(b"1234").hexdigest(), zlib.crc32(b"1234")]
    assert Ledger.from_bytes(data) == ledger
    assert ledger.size_bytes == 6


@pytest.mark.parametrize("data", [b"", b"[]", b'{"objects": [1]}', b'{"objects": {"a": 1}}', b"\xff"])
def test_a_damaged_ledger_is_named(data: bytes, tmp_path: Path) -> None:
    objects = LocalObjects(tmp_path)
    session = find_session("F")
    objects.write(f"{session.name}/{LEDGER_KEY}", data)
    with pytest.raises(
        StoreError, match=r"session F.*ledger\.json.*the ledger is damaged.*ingest F --store .* --repair"
    ):
        read_ledger(objects, session, session.name)


def test_content_digest_leaves_out_where_the_archive_was() -> None:
    assert make_ledger(b"read from a mirror").content_digest == make_ledger(b"read from GIN").content_digest
    changed = replace(make_ledger(), objects={**make_ledger().objects, "videos/c/0": StoredObject.of(b"1235")})
    assert changed.content_digest != make_ledger().content_digest


def test_differences_are_put_in_words() -> None:
    stored = StoredObject.of(b"abc")
    assert stored.find_difference(b"abc") is None
    assert stored.find_difference(b"ab") == "2 bytes in place of 3"
    assert stored.find_difference(b"abd") == "the digest of its bytes differs"


def test_merged_objects_are_sorted() -> None:
    one, other = StoredObject.of(b"1"), StoredObject.of(b"2")
    assert list(merge_objects([{"b": one}, {"a": other}])) == ["a", "b"]
