"""The Kubernetes API, as far as the operator needs it: a few verbs on plain JSON objects in one namespace.

Every write names the operator as its field manager, so that ``kubectl get --show-managed-fields`` tells who owns what,
and Helm, KEDA and ``kubectl apply --server-side`` leave the operator's few fields alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import aiohttp

from feedmill_rollouts.spec import JsonObject

MANAGER = "feedmill-rollouts"
TIMEOUT = aiohttp.ClientTimeout(total=20, connect=5)


class ApiError(Exception):
    """The API refused, or did not answer (status 0)."""

    def __init__(self, status: int, what: str, text: str = "") -> None:
        super().__init__(f"{what}: {status or 'no answer'} {text[:300]}".strip())
        self.status = status


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of namespaced object."""

    prefix: str
    plural: str


PODS = Resource("/api/v1", "pods")
CONFIG_MAPS = Resource("/api/v1", "configmaps")
EVENTS = Resource("/api/v1", "events")
DEPLOYMENTS = Resource("/apis/apps/v1", "deployments")
JOBS = Resource("/apis/batch/v1", "jobs")
ROLLOUTS = Resource("/apis/feedmill.dev/v1alpha1", "modelrollouts")


class Cluster:
    """One namespace of a cluster."""

    def __init__(self, session: aiohttp.ClientSession, server: str, namespace: str) -> None:
        """``session`` has the credentials; it is the caller's to close."""
        self._session = session
        self._server = server.rstrip("/")
        self.namespace = namespace

    async def get(self, resource: Resource, name: str) -> JsonObject | None:
        """None where it is not there. Raises ApiError."""
        try:
            return await self._ask("GET", self._url(resource, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def list(self, resource: Resource, labels: Mapping[str, str]) -> list[JsonObject]:
        """Objects with all these labels; without any, all. Raises ApiError."""
        selector = quote(",".join(f"{name}={value}" for name, value in labels.items()), safe="")
        found = await self._ask("GET", f"{self._url(resource)}{f'?labelSelector={selector}' if selector else ''}")
        items: list[JsonObject] = found.get("items") or []
        return [item for item in items if labels.items() <= (item["metadata"].get("labels") or {}).items()]

    async def create(self, resource: Resource, body: JsonObject) -> bool:
        """False where it is there already. Raises ApiError."""
        try:
            await self._ask("POST", f"{self._url(resource)}?fieldManager={MANAGER}", body)
        except ApiError as error:
            if error.status == 409:
                return False
            raise
        return True

    async def patch(self, resource: Resource, name: str, body: JsonObject, subresource: str = "") -> None:
        """A merge patch. With ``metadata.resourceVersion`` in it: status 409 where somebody was quicker. Raises
        ApiError."""
        path = self._url(resource, name) + (f"/{subresource}" if subresource else "")
        await self._ask("PATCH", f"{path}?fieldManager={MANAGER}", body, "application/merge-patch+json")

    async def delete(self, resource: Resource, name: str) -> None:
        """Does nothing where it is not there. Raises ApiError."""
        try:
            await self._ask("DELETE", self._url(resource, name), {"propagationPolicy": "Background"})
        except ApiError as error:
            if error.status != 404:
                raise

    def _url(self, resource: Resource, name: str = "") -> str:
        path = f"{self._server}{resource.prefix}/namespaces/{self.namespace}/{resource.plural}"
        return f"{path}/{quote(name, safe='')}" if name else path

    async def _ask(
        self, method: str, url: str, body: JsonObject | None = None, content_type: str = "application/json"
    ) -> JsonObject:
        what = f"{method} {url.removeprefix(self._server).partition('?')[0]}"
        data = None if body is None else json.dumps(body).encode()
        try:
            async with self._session.request(
                method, url, data=data, headers={"Content-Type": content_type}, timeout=TIMEOUT
            ) as answer:
                text = await answer.text()
                if answer.status >= 400:
                    raise ApiError(answer.status, what, _message(text))
                found: JsonObject = json.loads(text) if text else {}
                return found
        except (aiohttp.ClientError, TimeoutError, json.JSONDecodeError) as error:
            raise ApiError(0, what, type(error).__name__) from error


def merge_patch(before: JsonObject, after: JsonObject) -> JsonObject:
    """The JSON merge patch (RFC 7386) that makes ``after`` of ``before``: what is gone is null, lists are replaced."""
    changed: JsonObject = dict.fromkeys(before.keys() - after.keys())
    for name, value in after.items():
        if name in before and before[name] == value:
            continue
        known = before.get(name)
        changed[name] = merge_patch(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return changed


def _message(text: str) -> str:
    try:
        value: Any = json.loads(text)
    except json.JSONDecodeError:
        return text
    return str(value.get("message", text)) if isinstance(value, dict) else text
