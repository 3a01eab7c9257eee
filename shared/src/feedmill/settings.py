"""Settings, read from the environment and from a ``.env`` file, in small groups.

The broker's and the store's names are those that deployments already have (``MONGO_URI``, ``RABBITMQ_HOST`` …);
everything else starts with ``FEEDMILL_``. Nothing is read at import: a group is read when it is made.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import quote, urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from feedmill.errors import SettingsError

Seconds = Annotated[float, Field(gt=0, le=86_400)]
Name = Annotated[str, Field(min_length=1, max_length=200)]


class Group(BaseSettings):
    """What all groups share: ``FEEDMILL_`` names, ``.env``, nothing changed after reading."""

    model_config = SettingsConfigDict(
        env_prefix="FEEDMILL_",
        env_file=".env",
        env_file_encoding="utf-8",
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        env_ignore_empty=True,
    )


class BrokerSettings(Group):
    """RabbitMQ: where it is, and how patiently it is used."""

    url: SecretStr | None = Field(
        None,
        validation_alias="RABBITMQ_URL",
        description="amqp:// or amqps:// URL; wins over the single settings below",
    )
    host: Name = Field("localhost", validation_alias="RABBITMQ_HOST")
    port: int = Field(5672, ge=1, le=65_535, validation_alias="RABBITMQ_PORT")
    user: Name = Field("guest", validation_alias="RABBITMQ_USER")
    password: SecretStr = Field(SecretStr("guest"), validation_alias="RABBITMQ_PASSWORD")
    vhost: Name = Field("/", validation_alias="RABBITMQ_VHOST")
    tls_ca_file: str | None = Field(None, validation_alias="RABBITMQ_CA_FILE", description="PEM file for amqps://")
    heartbeat_seconds: int = Field(15, ge=2, le=600, description="a silent peer is dropped after about three of these")
    connect_timeout_seconds: Seconds = Field(10.0, description="for the TCP, TLS and AMQP handshakes together")
    operation_timeout_seconds: Seconds = Field(15.0, description="for one declaration, one consume, one confirm")
    check_interval_seconds: Seconds = Field(5.0, description="how often the consumer's channel is asked for an answer")
    reconnect_max_seconds: Seconds = Field(20.0, description="cap of the jittered back-off between connections")
    queue_type: Literal["classic", "quorum"] = Field(
        "classic", description="classic or quorum, for queues that do not exist yet"
    )
    prefetch: int = Field(128, ge=1, le=10_000, description="unacknowledged messages one worker holds at most")
    max_body_bytes: int = Field(1_048_576, ge=1024, description="a larger message is a dead letter, never parsed")
    max_result_bytes: int = Field(16_777_216, ge=1024, description="a message with a larger result is a dead letter")
    retry_delays_seconds: Annotated[tuple[int, ...], NoDecode] = Field(
        (1, 5, 30, 120, 600), description="one retry queue each; a message that failed once more is a dead letter"
    )

    max_returns: int = Field(
        3,
        ge=2,
        le=15,
        description="quorum queues: a message that came back so often is handled alone, from <queue>.alone; when it "
        "came back so often from there, it is a dead letter. Below the queue's delivery limit",
    )

    @field_validator("retry_delays_seconds", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("retry_delays_seconds")
    @classmethod
    def _rising(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(delay < 1 for delay in value) or list(value) != sorted(set(value)):
            raise ValueError("expected whole seconds of at least 1, rising, separated by commas, such as 1,5,30")
        return value

    @field_validator("url")
    @classmethod
    def _amqp(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return value
        text = value.get_secret_value()
        if _scheme(text) not in {"amqp", "amqps"}:
            raise ValueError("expected a URL that starts with amqp:// or amqps://")
        if not _is_plain_url(text):
            raise ValueError(
                "expected scheme://user:password@host:port/vhost, special characters percent-encoded (@ is %40, / %2F)"
            )
        return value

    def amqp_url(self) -> str:
        """The URL with its password: for connecting only, never for a log."""
        if self.url is not None:
            return self.url.get_secret_value()
        user, password = quote(self.user, safe=""), quote(self.password.get_secret_value(), safe="")
        return f"amqp://{user}:{password}@{self.host}:{self.port}/{quote(self.vhost, safe='')}"

    def display_url(self) -> str:
        """Scheme, host, port and vhost, without credentials: for logs."""
        parts = urlsplit(self.amqp_url())
        default_port = 5671 if parts.scheme == "amqps" else 5672
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return f"{parts.scheme}://{host}:{parts.port or default_port}{parts.path}"


class RoutingSettings(Group):
    """The part that a worker has in a rollout: docs/rollouts.md."""

    role: Literal["stable", "candidate", "shadow"] = Field(
        "stable",
        description="stable, or a rollout's candidate (handles what stable hands over) or shadow (judges copies, "
        "publishes nothing)",
    )
    input_queue: str = Field(
        "", max_length=200, description="queue to consume; empty: the contract's, for a candidate <queue>.candidate"
    )
    routing_file: str = Field(
        "", description="stable: JSON file that says what goes to a candidate; read again when it changes; empty: none"
    )
    routing_poll_seconds: Seconds = Field(1.0, description="how often the routing file is looked at")
    mirror_ttl_seconds: int = Field(
        3600, ge=1, le=86_400, description="a copy that no candidate takes is dropped by the broker after this"
    )


class StoreSettings(Group):
    """The database that speaks MongoDB's protocol."""

    uri: SecretStr = Field(SecretStr("mongodb://localhost:27017"), validation_alias="MONGO_URI")
    database: Annotated[str, Field(pattern=r'^[^/\\. "$*<>:|?\x00]{1,63}$')] = Field(
        "feedmill", validation_alias="DATABASE_NAME"
    )
    driver: Literal["motor", "pymongo"] = Field(
        "motor", validation_alias="FEEDMILL_STORE_DRIVER", description="motor or pymongo: docs/adr/0002"
    )
    pool_size: int = Field(16, ge=1, le=1000, validation_alias="FEEDMILL_STORE_POOL_SIZE")
    operation_timeout_seconds: Seconds = Field(10.0, validation_alias="FEEDMILL_STORE_TIMEOUT_SECONDS")
    server_selection_timeout_seconds: Seconds = Field(
        5.0,
        validation_alias="FEEDMILL_STORE_SELECTION_TIMEOUT_SECONDS",
    )
    upsert: bool = Field(False, description="write to posts and comments that do not exist yet (makes ghosts)")

    @field_validator("uri")
    @classmethod
    def _mongodb(cls, value: SecretStr) -> SecretStr:
        if _scheme(value.get_secret_value()) not in {"mongodb", "mongodb+srv"}:
            raise ValueError("expected a URI that starts with mongodb:// or mongodb+srv://")
        return value


class BatchSettings(Group):
    """How much goes through the model at once."""

    max_batch_items: int = Field(64, ge=1, le=4096, description="messages in one batch at most")
    max_batch_tokens: int = Field(
        0, ge=0, description="tokens in one batch at most (one longer text goes alone); 0: what suits the model"
    )
    stuck_after_seconds: Seconds = Field(300.0, description="a batch that takes longer fails /livez")
    drain_timeout_seconds: Seconds = Field(
        25.0, description="from SIGTERM to handing back what is not done; below the pod's grace period"
    )


class ProbeSettings(Group):
    """The HTTP server for probes and metrics."""

    probe_host: str = Field("0.0.0.0", description="address to listen on")  # noqa: S104 (the kubelet comes from outside)
    probe_port: int = Field(8080, ge=0, le=65_535, description="0 takes a free port")


class LogSettings(Group):
    """Logging."""

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="debug, info, warning or error")
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="json, text, or auto: text on a terminal, else JSON"
    )


class ModelSettings(Group):
    """Which model a worker runs, and how. Labels and thresholds are the classifier's."""

    model: str = Field("", description="hf://owner/name@revision, file:///path or pkg://package; empty: the default")
    model_cache: str = Field("", description="where hf:// models are kept; empty: huggingface_hub's own place")
    backend: Literal["torch", "onnx"] = Field(
        "torch", description="torch, or onnx: ONNX Runtime, on an export that export-onnx made; without torch"
    )
    onnx_precision: Literal["fp32", "int8"] = Field(
        "fp32", description="onnx: which export; int8 is quicker and another embedding space"
    )
    onnx_dir: str = Field("", description="onnx: folder of the exports; empty: feedmill/onnx in the user's cache")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="cpu, cuda, or auto: CUDA where torch sees it")
    lanes: int = Field(0, ge=0, le=64, description="batches in the model side by side; 0: one a core, at most 4")
    threads: int = Field(0, ge=0, le=256, description="cores for each lane; 0: the usable cores shared out")
    max_tokens: int = Field(
        256, ge=8, le=8192, description="longer texts are cut (encode) or judged in windows (toxic)"
    )
    max_windows: int = Field(
        32,
        ge=1,
        le=1024,
        description="toxic: windows of max_tokens in which a long text is judged; the rest is cut, marked",
    )
    max_text_chars: int = Field(100_000, ge=1, description="a longer text is a dead letter")
    toxic_labels: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="label names that mean toxic; empty: known names, else every label but a clean one"
    )
    clean_labels: Annotated[tuple[str, ...], NoDecode] = Field((), description="label names that mean clean")
    threshold: float = Field(0.5, ge=0, le=1, description="a toxic label at or above this makes the text toxic")
    label_thresholds: Annotated[dict[str, float], NoDecode] = Field(
        default_factory=dict, description='per label, as JSON: {"threat": 0.3}'
    )
    languages: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="toxic: ISO 639-1 codes that the model can judge, en,vi; empty: what the model says, else any"
    )
    text_prefix: str | None = Field(None, description="put before each text; unset: what the model is known to need")

    @field_validator("toxic_labels", "clean_labels", "languages", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("languages")
    @classmethod
    def _codes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(len(code) != 2 or not code.isascii() or not code.isalpha() or not code.islower() for code in value):
            raise ValueError("expected ISO 639-1 codes, separated by commas, such as en,vi")
        return value

    @field_validator("label_thresholds", mode="before")
    @classmethod
    def _parse(cls, value: object) -> object:
        try:
            return json.loads(value) if isinstance(value, str) else value
        except ValueError:
            raise ValueError('expected a JSON object, such as {"threat": 0.3}') from None

    @field_validator("label_thresholds")
    @classmethod
    def _shares(cls, value: dict[str, float]) -> dict[str, float]:
        if any(not 0 <= threshold <= 1 for threshold in value.values()):
            raise ValueError("expected thresholds between 0 and 1")
        return value


G = TypeVar("G", bound=Group)


def _scheme(url: str) -> str:
    """The URL's scheme; ``""`` where it can't be parsed: the parser's own error may show the password."""
    try:
        return urlsplit(url).scheme
    except ValueError:
        return ""


def _is_plain_url(url: str) -> bool:
    """Whether ``url`` has a host and a valid port, and its credentials, if any, end where a parser looks for their end.

    A raw ``/``, ``?`` or ``#`` in a password ends the authority early: what is left of the password would be taken for
    a port or a path, connected to and shown in logs.
    """
    parts = urlsplit(url)
    try:
        has_port = parts.port is None or parts.port > 0
    except ValueError:
        return False
    return bool(parts.hostname) and has_port and url.count("@") == parts.netloc.count("@") <= 1


def read(group: type[G], **overrides: Any) -> G:
    """Read one group from the environment; ``overrides`` win.

    Raises:
        SettingsError: names every setting that is wrong and what was expected, never its value (it may be a secret).
    """
    try:
        return group(**overrides)
    except ValidationError as error:
        problems = "; ".join(f"{_variable(group, item['loc'])}: {item['msg']}" for item in error.errors())
        raise SettingsError(problems) from None


def variable(field: str, info: FieldInfo) -> str:
    """The environment variable that sets a field."""
    return info.validation_alias if isinstance(info.validation_alias, str) else f"FEEDMILL_{field.upper()}"


def _variable(group: type[Group], location: tuple[int | str, ...]) -> str:
    """The environment variable behind a pydantic error location."""
    name = str(location[0]) if location else group.__name__
    for field, info in group.model_fields.items():
        if name in {field, info.validation_alias}:
            return variable(field, info)
    return name.upper()
