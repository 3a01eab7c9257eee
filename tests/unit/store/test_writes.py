from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymongo import errors

from feedmill.errors import Outage, Reject, Retry
from feedmill.store import faults
from feedmill.store.writes import Write, encoding_fault, waves


@given(st.lists(st.sampled_from("abcd")))
def test_waves_keep_the_order_of_writes_to_one_id(ids: list[str]) -> None:
    groups = waves([Write(post_id, {}) for post_id in ids])
    sent = [position for group in groups for position in group]
    assert sorted(sent) == list(range(len(ids)))
    for group in groups:
        assert len({ids[position] for position in group}) == len(group)
    for post_id in set(ids):
        positions = [position for position in sent if ids[position] == post_id]
        assert positions == sorted(positions)


@pytest.mark.parametrize("value", ["\ud800", 2**64, object(), {"a\x00b": 1}, "x" * (16 * 1024 * 1024)])
def test_what_bson_cannot_hold_is_rejected_without_being_quoted(value: object) -> None:
    fault = encoding_fault(Write("a", {"$set": {"secret_field": value}}))
    assert isinstance(fault, Reject)
    assert "secret_field" not in fault.detail


def test_a_sound_write_has_no_fault() -> None:
    assert encoding_fault(Write("a", {"$set": {"x": [1.5, "🙂", None]}})) is None


@pytest.mark.parametrize(
    "error",
    [
        errors.AutoReconnect("gone"),
        errors.ServerSelectionTimeoutError("none found"),
        errors.NetworkTimeout("slow"),
        errors.NotPrimaryError("moved"),
        errors.WaitQueueTimeoutError("pool"),
        errors.ExecutionTimeout("slow", 50),
        errors.WTimeoutError("not acknowledged", 64),
        errors.OperationFailure("interrupted", 11602),
        errors.ConfigurationError("no such host"),
    ],
)
def test_trouble_with_the_connection_is_an_outage(error: errors.PyMongoError) -> None:
    outage = faults.as_outage(error)
    assert outage is not None
    assert outage.dependency == "database"


@pytest.mark.parametrize("code", [13, 18, 8000])
def test_a_refused_login_says_what_to_check_and_quotes_nothing(code: int) -> None:
    outage = faults.as_outage(errors.OperationFailure("user:hunter2 in {command: body}", code))
    assert outage is not None
    assert "MONGO_URI" in outage.detail
    assert "hunter2" not in str(outage)


def test_a_call_that_the_server_does_not_understand_is_a_bug() -> None:
    assert faults.as_outage(errors.OperationFailure("no such command", 59)) is None


def test_errors_of_single_writes() -> None:
    assert isinstance(faults.write_error(121), Reject)
    assert isinstance(faults.write_error(17420), Reject)
    assert isinstance(faults.write_error(11000), Retry)
    assert isinstance(faults.write_error(None), Retry)


def test_a_bulk_write_that_lost_its_primary_is_an_outage() -> None:
    assert faults.bulk_outage({"writeErrors": [{"index": 0, "code": 11602}]}) is not None
    assert faults.bulk_outage({"writeConcernErrors": [{"code": 64}]}) is not None
    assert faults.bulk_outage({"writeErrors": [{"index": 0, "code": 121}], "writeConcernErrors": []}) is None


CODES = st.none() | st.integers(-1, 20_000) | st.sampled_from([*faults._AWAY_CODES, *faults._REJECT_CODES])


@given(CODES, st.text(max_size=20))
def test_every_code_of_the_server_has_one_meaning(code: int | None, words: str) -> None:
    """Away, or about the one message; and never in the server's words, which quote the message."""
    secret = f"secret{words}"
    outage = faults.as_outage(errors.OperationFailure(secret, code))
    assert outage is None or (isinstance(outage, Outage) and secret not in str(outage))
    in_bulk = faults.bulk_outage({"writeErrors": [{"code": code, "errmsg": secret}]})
    assert (in_bulk is not None) == (code in faults._AWAY_CODES)
    failure = faults.write_error(code)
    assert secret not in failure.detail
    assert isinstance(failure, Reject) == (code in faults._REJECT_CODES)
