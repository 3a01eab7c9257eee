"""Settings: the names that deployments have, and errors that name the setting and never show a value."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedmill.errors import SettingsError
from feedmill.settings import (
    BatchSettings,
    BrokerSettings,
    Group,
    LogSettings,
    ModelSettings,
    ProbeSettings,
    StoreSettings,
    read,
)
from feedmill.settings_help import describe, rows

GROUPS = (BrokerSettings, StoreSettings, BatchSettings, ProbeSettings, LogSettings, ModelSettings)
SECRET = "hunter2"


def set_all(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_existing_names_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(
        monkeypatch,
        RABBITMQ_HOST="rabbit",
        RABBITMQ_PORT="5673",
        RABBITMQ_USER="app",
        RABBITMQ_PASSWORD="pw",
        RABBITMQ_VHOST="site",
        MONGO_URI="mongodb://db:1/",
        DATABASE_NAME="social",
    )
    assert read(BrokerSettings).amqp_url() == "amqp://app:pw@rabbit:5673/site"
    assert read(StoreSettings).uri.get_secret_value() == "mongodb://db:1/"
    assert read(StoreSettings).database == "social"


def test_the_url_wins_over_single_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, RABBITMQ_HOST="ignored", RABBITMQ_URL="amqps://a:b@real/v")
    assert read(BrokerSettings).amqp_url() == "amqps://a:b@real/v"
    assert read(BrokerSettings).display_url() == "amqps://real:5671/v"


@pytest.mark.parametrize(
    "name", ["USER", "HOST", "PORT", "PASSWORD", "VHOST", "URL", "URI", "DATABASE", "DRIVER", "POOL_SIZE", "DEVICE"]
)
def test_variables_of_everybody_s_shell_are_none_of_ours(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [read(group).model_dump() for group in GROUPS]
    monkeypatch.setenv(name, "1")
    assert [read(group).model_dump() for group in GROUPS] == before


def test_a_dot_env_file_is_read_and_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("RABBITMQ_HOST=from-file\nRABBITMQ_USER=from-file\nSOMETHING_ELSE=1\n")
    monkeypatch.setenv("RABBITMQ_USER", "from-environment")
    settings = read(BrokerSettings)
    assert (settings.host, settings.user) == ("from-file", "from-environment")


def test_empty_values_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, RABBITMQ_URL="", RABBITMQ_PORT="", FEEDMILL_PREFETCH="", FEEDMILL_TOXIC_LABELS="")
    assert read(BrokerSettings) == BrokerSettings()
    assert read(ModelSettings).toxic_labels == ()


@given(user=st.text(min_size=1, max_size=20), password=st.text(max_size=20), vhost=st.text(min_size=1, max_size=20))
def test_credentials_are_quoted_and_never_displayed(user: str, password: str, vhost: str) -> None:
    settings = read(BrokerSettings, user=user, password=password, vhost=vhost, host="h")
    parts = urlsplit(settings.amqp_url())
    assert (unquote(parts.username or ""), unquote(parts.password or "")) == (user, password)
    assert unquote(parts.path[1:]) == vhost
    assert settings.display_url() == f"amqp://h:5672{parts.path}"


PIECES = st.text(alphabet="ab1:/@#?%[].", max_size=12)


@given(PIECES, PIECES, PIECES)
def test_no_accepted_url_shows_its_credentials(user: str, password: str, rest: str) -> None:
    marked = f"amqp://{user}{SECRET}:{SECRET}{password}@{rest}"
    try:
        shown = read(BrokerSettings, url=marked).display_url()
    except SettingsError as error:
        shown = str(error)
    assert SECRET not in shown


@pytest.mark.parametrize(
    "url",
    [
        "http://u:hunter2@h",
        "amqp://",
        "amqp://u:hunter2/x@h",
        "amqp://u:1234/hunter2@h",
        "amqp://u:hunter2#x@h",
        "amqp://u:hunter2?x@h",
        "amqp://u:hunter2@x/y@h",
        "amqp://u:hunter2@h:99999",
        "amqp://u:hunter2@h:port",
        "amqp://u:hunter2@[h",
        "amqp://u:hunter2@\u2100",
    ],
)
def test_urls_that_would_mislead_are_refused_without_being_shown(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RABBITMQ_URL", url)
    with pytest.raises(SettingsError, match=r"^RABBITMQ_URL: ") as caught:
        read(BrokerSettings)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [
        (BrokerSettings, "RABBITMQ_PORT", SECRET),
        (BrokerSettings, "RABBITMQ_PORT", "0"),
        (BrokerSettings, "RABBITMQ_USER", SECRET * 100),
        (BrokerSettings, "FEEDMILL_PREFETCH", SECRET),
        (BrokerSettings, "FEEDMILL_QUEUE_TYPE", SECRET),
        (BrokerSettings, "FEEDMILL_RETRY_DELAYS_SECONDS", "1,hunter2"),
        (BrokerSettings, "FEEDMILL_RETRY_DELAYS_SECONDS", "5,1"),
        (BrokerSettings, "FEEDMILL_RETRY_DELAYS_SECONDS", "0,1"),
        (BrokerSettings, "FEEDMILL_HEARTBEAT_SECONDS", "1.5"),
        (BrokerSettings, "FEEDMILL_OPERATION_TIMEOUT_SECONDS", "0"),
        (BrokerSettings, "FEEDMILL_OPERATION_TIMEOUT_SECONDS", "nan"),
        (StoreSettings, "MONGO_URI", "http://hunter2"),
        (StoreSettings, "MONGO_URI", "mongodb://u:hunter2@[x"),
        (StoreSettings, "DATABASE_NAME", "a.hunter2"),
        (StoreSettings, "FEEDMILL_STORE_DRIVER", SECRET),
        (StoreSettings, "FEEDMILL_UPSERT", SECRET),
        (ProbeSettings, "FEEDMILL_PROBE_PORT", "70000"),
        (LogSettings, "FEEDMILL_LOG_LEVEL", SECRET),
        (ModelSettings, "FEEDMILL_THRESHOLD", "2"),
        (ModelSettings, "FEEDMILL_LABEL_THRESHOLDS", SECRET),
        (ModelSettings, "FEEDMILL_LABEL_THRESHOLDS", '{"threat": "hunter2"}'),
        (ModelSettings, "FEEDMILL_LABEL_THRESHOLDS", '{"hunter2": 2}'),
        (ModelSettings, "FEEDMILL_LABEL_THRESHOLDS", "[1]"),
    ],
)
def test_a_refused_value_is_named_and_not_shown(
    group: type[Group], name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=rf"^{name}: ") as caught:
        read(group)
    assert SECRET not in str(caught.value)


def test_every_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, RABBITMQ_PORT="x", FEEDMILL_PREFETCH="y")
    with pytest.raises(SettingsError, match=r"RABBITMQ_PORT: .*; FEEDMILL_PREFETCH: "):
        read(BrokerSettings)


def test_lists_and_tables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(
        monkeypatch,
        FEEDMILL_RETRY_DELAYS_SECONDS=" 1, 5,,30 ",
        FEEDMILL_TOXIC_LABELS="HATE, OFFENSIVE",
        FEEDMILL_LABEL_THRESHOLDS='{"threat": 0.3}',
    )
    assert read(BrokerSettings).retry_delays_seconds == (1, 5, 30)
    assert read(ModelSettings).toxic_labels == ("HATE", "OFFENSIVE")
    assert read(ModelSettings).label_thresholds == {"threat": 0.3}


def test_nothing_that_is_printed_holds_a_secret() -> None:
    broker = read(BrokerSettings, url=f"amqp://u:{SECRET}@h/", password=SECRET)
    store = read(StoreSettings, uri=f"mongodb://u:{SECRET}@h/")
    for text in (repr(broker), str(broker), repr(store), str(store), str(broker.model_dump())):
        assert SECRET not in text


def test_the_help_names_every_setting_once_with_its_default() -> None:
    table = {name: default for name, default, _ in rows(GROUPS)}
    assert len(table) == sum(len(group.model_fields) for group in GROUPS)
    assert table["RABBITMQ_PASSWORD"] == "***"
    assert table["RABBITMQ_PORT"] == "5672"
    assert table["FEEDMILL_RETRY_DELAYS_SECONDS"] == "1,5,30,120,600"
    assert table["FEEDMILL_UPSERT"] == "false"
    assert "FEEDMILL_PREFETCH  [128]" in describe(GROUPS)


@pytest.mark.parametrize("group", GROUPS)
def test_every_setting_can_be_set_by_the_name_that_the_help_shows(
    group: type[Group], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = {name: default for name, default, _ in rows([group]) if default and default != "***"}
    set_all(monkeypatch, **shown)
    assert len(read(group).model_fields_set) == len(shown)
