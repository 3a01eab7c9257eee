"""TLS to broker and database, with real certificates: a good one is taken, every other kind refused, and told."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from faults.arena import behind, directly
from faults.proxy import TcpProxy
from feedmill.broker.connect import connect
from feedmill.broker.errors import SessionLost
from feedmill.errors import Outage
from feedmill.settings import BrokerSettings, StoreSettings
from feedmill.store import Store
from feedmill_local.database import Database
from feedmill_local.rabbitmq import RabbitNode


@dataclass(frozen=True)
class Case:
    """``trusted``: whether the client knows the authority; ``name``: whom the certificate is for."""

    name: str = "127.0.0.1"
    expired: bool = False
    trusted: bool = True


GOOD = Case()
BAD = {"wrong-name": Case(name="elsewhere.example"), "expired": Case(expired=True), "untrusted": Case(trusted=False)}


@contextmanager
def tls_in_front_of(port: int, case: Case, folder: Path) -> Iterator[tuple[TcpProxy, Path]]:
    """A server that speaks TLS with a certificate of this kind, and the file of the authority that the client knows."""
    authority, other = trustme.CA(), trustme.CA()
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    certificate = authority.issue_cert(case.name, **({"not_before": past, "not_after": past} if case.expired else {}))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    known = folder / "ca.pem"
    (authority if case.trusted else other).cert_pem.write_to_path(str(known))
    with TcpProxy(port, tls=context) as proxy:
        yield proxy, known


def broker_settings(url: str, proxy: TcpProxy, authority: Path | None) -> BrokerSettings:
    tls_url = behind(url, proxy).replace("amqp://", "amqps://")
    return BrokerSettings(url=tls_url, tls_ca_file=authority and str(authority), connect_timeout_seconds=5)


async def test_the_broker_s_good_certificate_is_taken(rabbit_url: str, rabbit_node: RabbitNode, tmp_path: Path) -> None:
    with tls_in_front_of(rabbit_node.config.amqp_port, GOOD, tmp_path) as (proxy, authority):
        connection = await connect(broker_settings(rabbit_url, proxy, authority), "test")
        assert not connection.is_closed
        await connection.close()


@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
async def test_a_bad_certificate_of_the_broker_is_refused(
    rabbit_url: str, rabbit_node: RabbitNode, tmp_path: Path, case: Case
) -> None:
    with tls_in_front_of(rabbit_node.config.amqp_port, case, tmp_path) as (proxy, authority):
        with pytest.raises(SessionLost, match=r"(?i)certificate") as refused:
            await connect(broker_settings(rabbit_url, proxy, authority), "test")
        assert rabbit_node.config.password not in str(refused.value)


async def test_an_authority_that_is_not_named_is_not_trusted(
    rabbit_url: str, rabbit_node: RabbitNode, tmp_path: Path
) -> None:
    front = tls_in_front_of(rabbit_node.config.amqp_port, GOOD, tmp_path)
    with front as (proxy, _), pytest.raises(SessionLost, match=r"(?i)certificate"):
        await connect(broker_settings(rabbit_url, proxy, None), "test")


async def test_plain_talk_to_a_tls_port_is_told(rabbit_url: str, rabbit_node: RabbitNode, tmp_path: Path) -> None:
    with tls_in_front_of(rabbit_node.config.amqp_port, GOOD, tmp_path) as (proxy, _):
        settings = BrokerSettings(url=behind(rabbit_url, proxy), connect_timeout_seconds=3)
        with pytest.raises(SessionLost):
            await connect(settings, "test")


def store_settings(uri: str, proxy: TcpProxy, authority: Path, driver: str) -> StoreSettings:
    return StoreSettings(
        uri=f"{directly(behind(uri, proxy))}&tls=true&tlsCAFile={authority}",
        driver=driver,
        server_selection_timeout_seconds=3,
        operation_timeout_seconds=5,
    )


@pytest.mark.parametrize("driver", ["motor", "pymongo"])
async def test_the_database_s_good_certificate_is_taken(
    database_server: Database, mongo_uri: str, tmp_path: Path, driver: str
) -> None:
    with tls_in_front_of(database_server.config.port, GOOD, tmp_path) as (proxy, authority):
        store = Store.open(store_settings(mongo_uri, proxy, authority, driver))
        try:
            await store.ping()
        finally:
            await store.close()


@pytest.mark.parametrize("driver", ["motor", "pymongo"])
@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
async def test_a_bad_certificate_of_the_database_is_refused(
    database_server: Database, mongo_uri: str, tmp_path: Path, case: Case, driver: str
) -> None:
    with tls_in_front_of(database_server.config.port, case, tmp_path) as (proxy, authority):
        store = Store.open(store_settings(mongo_uri, proxy, authority, driver))
        try:
            with pytest.raises(Outage, match=r"(?i)certificate"):
                await store.ping()
        finally:
            await store.close()
