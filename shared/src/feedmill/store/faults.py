"""The driver's errors in the terms of the pipeline: the database is away, or one write is at fault."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bson.errors import BSONError
from pymongo import errors

from feedmill.errors import MessageError, Outage, Reject, Retry

DEPENDENCY = "database"

ENCODING_ERRORS = (BSONError, UnicodeEncodeError, OverflowError, errors.DocumentTooLarge)
"""What the driver raises, before it sends anything, for a document that has no BSON form."""

# Names and numbers: https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml
_LOGIN_CODES = {11: "UserNotFound", 18: "AuthenticationFailed", 8000: "AtlasError"}
_UNAUTHORIZED = 13
_AWAY_CODES = {
    6: "HostUnreachable",
    7: "HostNotFound",
    24: "LockTimeout",
    43: "CursorNotFound",
    50: "MaxTimeMSExpired",
    64: "WriteConcernFailed",
    79: "UnknownReplWriteConcern",
    89: "NetworkTimeout",
    91: "ShutdownInProgress",
    100: "UnsatisfiableWriteConcern",
    133: "FailedToSatisfyReadPreference",
    134: "ReadConcernMajorityNotAvailableYet",
    175: "QueryPlanKilled",
    189: "PrimarySteppedDown",
    202: "NetworkInterfaceExceededTimeLimit",
    237: "CursorKilled",
    262: "ExceededTimeLimit",
    9001: "SocketException",
    10058: "LegacyNotPrimary",
    10107: "NotWritablePrimary",
    11600: "InterruptedAtShutdown",
    11601: "Interrupted",
    11602: "InterruptedDueToReplStateChange",
    13435: "NotPrimaryNoSecondaryOk",
    13436: "NotPrimaryOrSecondary",
    14031: "OutOfDiskSpace",
}
# A write that fails with one of these fails again however often it is tried. The server's own words are left out: they
# may quote the document, and reasons go into headers and logs.
_REJECT_CODES = {
    2: "a value that the server does not take",
    9: "an update that the server can't parse",
    14: "a field of another type",
    28: "a path through a field that is no object",
    40: "an update of the same path twice",
    52: "a field name that starts with $",
    54: "an update of a field that is no number",
    56: "an empty field name",
    57: "a field name with a dot",
    66: "another value for an immutable field",
    121: "the collection's validation rules",
    10334: "the limit of 16 MiB a document",
    17280: "an index key that is too long",
    17419: "the limit of 16 MiB a document",
    17420: "the limit of 16 MiB a document",
}


def as_outage(error: errors.PyMongoError) -> Outage | None:
    """The outage that a failed call means; None if the server answered, and did not like the call itself."""
    if isinstance(error, errors.OperationFailure):
        return _failure_as_outage(error)
    if isinstance(error, (errors.ConnectionFailure, errors.ConfigurationError, errors.ProtocolError)):
        return Outage(DEPENDENCY, f"{type(error).__name__}: {error}")
    return None


def _failure_as_outage(error: errors.OperationFailure) -> Outage | None:
    if error.code in _LOGIN_CODES:
        return Outage(DEPENDENCY, "login refused: expected a valid user and password (and authSource) in MONGO_URI")
    if error.code == _UNAUTHORIZED:
        # The server's words quote the whole command.
        return Outage(
            DEPENDENCY, "not authorized: expected a user in MONGO_URI with the role readWrite on the database"
        )
    away = isinstance(error, (errors.ExecutionTimeout, errors.WriteConcernError)) or error.code in _AWAY_CODES
    return Outage(DEPENDENCY, _name(error.code, type(error).__name__)) if away else None


def bulk_outage(details: Mapping[str, Any]) -> Outage | None:
    """The outage behind a bulk write's errors: not acknowledged by a majority, or the server went in the middle."""
    for entry in details.get("writeConcernErrors", ()):
        return Outage(DEPENDENCY, f"write concern not met: {_name(entry.get('code'), 'WriteConcernError')}")
    for entry in details.get("writeErrors", ()):
        if entry.get("code") in _AWAY_CODES:
            return Outage(DEPENDENCY, _name(entry["code"], "WriteError"))
    return None


def write_error(code: int | None) -> MessageError:
    """What a server's error for one write means for its message."""
    if code in _REJECT_CODES:
        return Reject("refused_by_database", f"the write conflicts with {_REJECT_CODES[code]} (code {code})")
    return Retry("write_failed", f"the database refused the write with code {code}")


def encoding_error(kind: str) -> Reject:
    """What a document without a BSON form means for its message. The driver's words may quote the document."""
    return Reject(
        "not_storable",
        f"not storable as BSON ({kind}): expected valid Unicode, field names without NUL, integers of "
        "at most 64 bits, and at most 16 MiB",
    )


def _name(code: int | None, default: str) -> str:
    return _AWAY_CODES.get(code, default) if code is not None else default
