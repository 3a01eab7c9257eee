"""Making the driver's client. Motor and PyMongo's asyncio client share nearly all names (docs/adr/0002)."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pymongo.errors import PyMongoError

from feedmill.errors import SettingsError
from feedmill.settings import StoreSettings


def make_client(settings: StoreSettings, app_name: str) -> Any:
    """A client that connects on first use. Options in the URI win over ours.

    Raises:
        SettingsError: the driver refuses the URI, or the URI asks for unacknowledged writes. The text never quotes the
            URI, nor the driver's own words, which may quote a part of it that holds a password.
    """
    uri = settings.uri.get_secret_value()
    try:
        client = _client_class(settings)(uri, **_options(settings, app_name, _names_in(uri)))
    except (PyMongoError, ValueError, TypeError) as error:
        raise SettingsError(
            f"MONGO_URI: the driver refuses it ({type(error).__name__}): expected mongodb://user:password@host:port/"
            "?options, with special characters in the user and the password percent-encoded"
        ) from None
    if not client.write_concern.acknowledged:
        raise SettingsError("MONGO_URI: w=0 was asked for: expected acknowledged writes, w=majority (the default)")
    return client


def display_address(settings: StoreSettings) -> str:
    """Hosts and database, without credentials and options: for logs."""
    hosts = urlsplit(settings.uri.get_secret_value()).netloc.rpartition("@")[2]
    return f"{hosts}/{settings.database}"


def _client_class(settings: StoreSettings) -> Any:
    if settings.driver == "motor":
        from motor.motor_asyncio import AsyncIOMotorClient

        return AsyncIOMotorClient
    from pymongo import AsyncMongoClient

    return AsyncMongoClient


def _names_in(uri: str) -> set[str]:
    return {name.lower() for name, _ in parse_qsl(urlsplit(uri).query, keep_blank_values=True)}


def _options(settings: StoreSettings, app_name: str, in_uri: set[str]) -> dict[str, Any]:
    operation_ms = int(settings.operation_timeout_seconds * 1000)
    selection_ms = int(settings.server_selection_timeout_seconds * 1000)
    options: dict[str, Any] = {
        "appname": app_name,
        "maxPoolSize": settings.pool_size,
        "serverSelectionTimeoutMS": selection_ms,
        "connectTimeoutMS": min(operation_ms, selection_ms),
        "socketTimeoutMS": operation_ms,
        "waitQueueTimeoutMS": operation_ms,
        # A date or a string that Python can't hold must not make a whole batch of documents unreadable.
        "datetime_conversion": "DATETIME_AUTO",
        "unicode_decode_error_handler": "replace",
    }
    if not in_uri & {"w", "journal", "j"}:
        # A majority on a replica set; the journal on a server that stands alone, where a majority is just itself.
        options |= {"w": "majority", "journal": True, "wTimeoutMS": operation_ms}
    return {name: value for name, value in options.items() if name.lower() not in in_uri}
