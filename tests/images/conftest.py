"""The images have to be there (make images), and an engine to run them, on Linux: containers share the host's network,
where the tests' servers listen."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from support.ci import in_ci
from support.images import ENGINE_SECONDS, image
from support.workers import Servers

IMAGES = ("toxic", "encode", "hint")
"""What a module needs that names nothing else as its own ``IMAGES``."""


def problem(names: tuple[str, ...]) -> str | None:
    """What is missing to run the images; None where nothing is."""
    if shutil.which("docker") is None:
        return "there is no docker on the PATH"
    for name in names:
        found = subprocess.run(
            ["docker", "image", "inspect", image(name)],
            capture_output=True,
            text=True,
            timeout=ENGINE_SECONDS,
            check=False,
        )
        if found.returncode:
            return f"{found.stderr.strip()}: run make images{'-onnx' if name.endswith('-onnx') else ''}"
    return None


@pytest.fixture(scope="module", autouse=True)
def _images(request: pytest.FixtureRequest) -> None:
    missing = problem(getattr(request.module, "IMAGES", IMAGES))
    if missing and getattr(request.module, "NEEDED", in_ci()):
        pytest.fail(f"needed in CI: {missing}", pytrace=False)
    if missing:
        pytest.skip(missing)


@pytest.fixture
def servers(rabbit_url: str, mongo_uri: str, database_name: str) -> Servers:
    """A vhost and a database of this test's own."""
    return Servers(rabbit_url, mongo_uri, database_name)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Sizes, times and peaks, as the tests measured them."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties if report.when == "call" else ():
            terminalreporter.write_line(f"{name} {value}  {report.nodeid.partition('::')[2]}")
