"""What a private node is told before it boots."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from feedmill_local.rabbitmq_config import NodeConfig, hash_password
from feedmill_local.rabbitmq_packages import Installation
from feedmill_local.rabbitmq_programs import container, native_environment


@pytest.fixture
def config() -> NodeConfig:
    return NodeConfig.new((20001, 20002, 20003), ("rabbitmq_management",))


def test_the_password_hash_is_the_one_of_rabbitmqs_documentation() -> None:
    """The worked example of https://www.rabbitmq.com/docs/passwords#computing-password-hash."""
    expected = "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"
    assert hash_password("test12", bytes.fromhex("908DC60A")) == expected


def test_a_config_comes_back_as_it_was_saved(config: NodeConfig, tmp_path: Path) -> None:
    assert NodeConfig.read(tmp_path) is None
    config.save(tmp_path)
    assert NodeConfig.read(tmp_path) == config


def test_two_nodes_share_neither_name_nor_password() -> None:
    first, second = (NodeConfig.new((1, 2, 3), ()) for _ in range(2))
    assert first.name != second.name
    assert first.password != second.password


def test_files_with_secrets_are_the_owners_alone(config: NodeConfig, tmp_path: Path) -> None:
    config.save(tmp_path)
    config.write_boot_files(tmp_path, [])
    for name in ("node.json", "definitions.json", "home/.erlang.cookie"):
        assert (tmp_path / name).stat().st_mode & 0o077 == 0


def test_the_only_user_is_ours_and_may_do_all_in_every_vhost(config: NodeConfig, tmp_path: Path) -> None:
    config.write_boot_files(tmp_path, ["a"])
    definitions = json.loads((tmp_path / "definitions.json").read_text())
    assert [user["name"] for user in definitions["users"]] == ["feedmill"]
    assert [vhost["name"] for vhost in definitions["vhosts"]] == ["/", "a"]
    assert [right["vhost"] for right in definitions["permissions"]] == ["/", "a"]


def test_the_cookie_stays_over_boots(config: NodeConfig, tmp_path: Path) -> None:
    config.write_boot_files(tmp_path, [])
    cookie = (tmp_path / "home/.erlang.cookie").read_text()
    config.write_boot_files(tmp_path, [])
    assert (tmp_path / "home/.erlang.cookie").read_text() == cookie


def test_nothing_of_the_users_settings_reaches_the_node(
    config: NodeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RABBITMQ_SERVER_START_ARGS", "ERL_FLAGS", "MNESIA_BASE", "CONF_ENV_FILE"):
        monkeypatch.setenv(name, "the user's")
    installation = Installation(tmp_path / "sbin", tmp_path / "bin/erl")
    assert "the user's" not in native_environment(config, tmp_path, installation).values()


def test_a_container_listens_on_loopback_only_and_knows_no_password(config: NodeConfig, tmp_path: Path) -> None:
    command = container(config, tmp_path).command()
    assert command[command.index("--publish") + 1] == "127.0.0.1:20001:5672"
    assert not any(config.password in part for part in command)
