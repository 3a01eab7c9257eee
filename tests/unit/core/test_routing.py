"""Which messages a candidate gets, and where the choice comes from."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedmill.errors import SettingsError
from feedmill.metrics import new_metrics
from feedmill.routing import BUCKETS, MODES, OFF, Routing, RoutingFile, bucket, parse

shares = st.floats(0, 100)
ids = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=256)


def takes(share: float, message_id: str) -> bool:
    return Routing("share", share).takes(bucket({"_id": message_id}, b""))


@given(ids, st.binary(), st.binary())
def test_an_id_is_sticky_whatever_else_is_in_the_message(message_id: str, one: bytes, other: bytes) -> None:
    assert bucket({"_id": message_id, "content": "a"}, one) == bucket({"commentId": message_id}, other)


@given(shares, shares, ids)
def test_a_larger_share_only_adds_ids(one: float, other: float, message_id: str) -> None:
    assert takes(min(one, other), message_id) <= takes(max(one, other), message_id)


@given(ids)
def test_nothing_at_0_and_everything_at_100_percent(message_id: str) -> None:
    assert not takes(0, message_id)
    assert takes(100, message_id)


@pytest.mark.parametrize("share", [0.5, 5, 25, 50, 90])
def test_shares_are_exact_within_sampling_error(share: float) -> None:
    count = 40_000
    taken = sum(takes(share, f"post-{number}") for number in range(count))
    expected = count * share / 100
    # Four standard deviations of a fair draw; the ids are fixed, so this passes always or never.
    assert abs(taken - expected) <= 4 * (expected * (1 - share / 100)) ** 0.5


def test_buckets_are_uniform() -> None:
    """Chi-squared over 100 groups of buckets: 99 degrees of freedom, below 149 in 999 of 1000 fair draws."""
    counts = [0] * 100
    for number in range(50_000):
        counts[bucket({"_id": f"{number:024x}"}, b"") * 100 // BUCKETS] += 1
    assert sum((count - 500) ** 2 / 500 for count in counts) < 149


def test_an_object_id_has_one_bucket_however_it_is_spelt() -> None:
    spellings = ["507f1f77bcf86cd799439011", "507F1F77BCF86CD799439011", {"$oid": "507f1f77bcf86cd799439011"}]
    assert len({bucket({"_id": spelling}, b"") for spelling in spellings}) == 1


@given(st.lists(st.binary(min_size=1), min_size=2, max_size=20, unique=True))
def test_messages_without_an_id_are_told_apart_by_their_body(bodies: list[bytes]) -> None:
    assert [bucket({}, body) for body in bodies] == [bucket({"_id": None}, body) for body in bodies]
    assert bucket({"_id": {"$ne": 1}}, bodies[0]) == bucket({}, bodies[0])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "JSON object"),
        (b"[]", "got list"),
        (b'{"mode": "all"}', "mode: expected off, mirror or share, got 'all'"),
        (b'{"mode": "share"}', "share: missing"),
        (b'{"mode": "share", "share": 101}', "share: expected a number from 0 to 100"),
        (b'{"mode": "share", "share": true}', "share"),
        (b'{"mode": "share", "share": 5, "generation": -1}', "generation"),
        (b" " * 70_000, "70000 bytes"),
    ],
)
def test_bad_content_names_the_field(content: bytes, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        parse(content)


@given(st.binary(max_size=200))
def test_any_content_is_a_routing_or_a_clear_error(content: bytes) -> None:
    with suppress(SettingsError):
        assert parse(content).mode in MODES


def mounted(folder: Path, content: str) -> Path:
    """A ConfigMap as the kubelet mounts it: the file is a link into ..data, which is a link to a dated folder."""
    swap(folder, content)
    link = folder / "routing.json"
    if not link.is_symlink():
        link.symlink_to("..data/routing.json")
    return link


def swap(folder: Path, content: str) -> None:
    version = folder / f"..{len(list(folder.iterdir()))}"
    version.mkdir()
    (version / "routing.json").write_text(content)
    fresh = folder / "..data_tmp"
    fresh.symlink_to(version.name)
    fresh.replace(folder / "..data")


async def test_the_file_is_followed_through_the_kubelets_swaps(tmp_path: Path) -> None:
    metrics = new_metrics("echo")
    file = RoutingFile(str(tmp_path / "routing.json"), 0.01, metrics)
    await file.look()
    assert file.current == OFF
    mounted(tmp_path, '{"mode": "share", "share": 12.5, "generation": 3}')
    await file.look()
    assert file.current == Routing("share", 12.5, 3)
    swap(tmp_path, '{"mode": "mirror", "generation": 4}')
    await file.look()
    assert file.current == Routing("mirror", 0.0, 4)
    value = metrics.registry.get_sample_value
    assert value("feedmill_routing_generation", {"worker": "echo"}) == 4
    assert value("feedmill_routing_mirrors", {"worker": "echo"}) == 1


async def test_bad_content_keeps_the_last_good_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = new_metrics("echo")
    path = mounted(tmp_path, '{"mode": "share", "share": 5}')
    file = RoutingFile(str(path), 0.01, metrics)
    await file.look()
    swap(tmp_path, '{"mode": "shar')
    caplog.clear()
    with caplog.at_level(logging.ERROR):
        await file.look()
        await file.look()
    assert file.current == Routing("share", 5.0)
    assert metrics.registry.get_sample_value("feedmill_routing_file_valid", {"worker": "echo"}) == 0
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    swap(tmp_path, '{"mode": "off"}')
    await file.look()
    assert file.current == OFF
    assert metrics.registry.get_sample_value("feedmill_routing_file_valid", {"worker": "echo"}) == 1


async def test_a_file_that_goes_away_means_off_and_one_that_cannot_be_read_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "routing.json"
    path.write_text('{"mode": "share", "share": 5}')
    file = RoutingFile(str(path), 0.01, new_metrics("echo"))
    await file.look()
    path.unlink()
    path.mkdir()  # reading a folder fails, whoever the user is
    await file.look()
    assert file.current.mode == "share"
    path.rmdir()
    await file.look()
    assert file.current == OFF
