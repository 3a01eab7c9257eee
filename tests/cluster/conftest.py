"""One installation for each module's tests, which build on each other: after the first failure the rest is skipped."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from cluster.stage import WORKERS, Stage

IMAGE = {"registry": os.environ.get("E2E_REGISTRY", ""), "tag": os.environ.get("E2E_TAG", "")}
SMALL = {"resources": {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "2Gi"}}}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.when == "call" and report.failed:
        item.has_failed = True
    return report


@pytest.fixture(scope="module")
def failed() -> list[str]:
    """The first of the module's tests that failed, if any."""
    return []


@pytest.fixture(scope="module")
def stage(
    request: pytest.FixtureRequest, failed: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """In the module's NAMESPACE, which stays for looking into it where a test failed."""
    namespace = request.module.NAMESPACE
    values = {"global": {"image": IMAGE}, "demo": {"enabled": True}, **dict.fromkeys(WORKERS, SMALL)}
    found = Stage(namespace, values, tmp_path_factory.mktemp("values"))
    yield found
    if not failed:
        found.kubectl("delete", "namespace", namespace, "--timeout=300s")


@pytest.fixture
def _in_order(request: pytest.FixtureRequest, failed: list[str]) -> Iterator[None]:
    if failed:
        pytest.skip(f"{failed[0]} has failed")
    failed.append(request.node.name)
    yield
    if not getattr(request.node, "has_failed", False):
        failed.remove(request.node.name)
