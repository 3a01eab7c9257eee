"""One look at a ModelRollout and its surroundings, one decision, and the cluster brought to it.

The order makes every interruption harmless: the status is written first, with the version that was read; only what that
status asks for is done then, and it is done again, without effect, at the next look.
"""

from __future__ import annotations

import logging
import uuid
from dataclasses import replace
from datetime import UTC, datetime

import aiohttp

from feedmill_rollouts import objects
from feedmill_rollouts.cluster import EVENTS, ROLLOUTS, ApiError, Cluster
from feedmill_rollouts.conditions import condition_events, with_conditions
from feedmill_rollouts.decisions import IDLE_SECONDS, decide
from feedmill_rollouts.doing import Doing
from feedmill_rollouts.farewell import is_half_switched, let_go
from feedmill_rollouts.looking import Looking, Window
from feedmill_rollouts.metrics import METRICS
from feedmill_rollouts.observed import Event, Observation
from feedmill_rollouts.spec import JsonObject, Spec, SpecError, read_spec
from feedmill_rollouts.status import BEGINNING, FINAL, Status, stamp

log = logging.getLogger(__name__)

CONFLICT_SECONDS = 0.5


class Reconciler:
    """Looks after the rollouts of one namespace. Holds nothing that a restart would miss."""

    def __init__(self, cluster: Cluster, pods: aiohttp.ClientSession, windows: dict[str, Window]) -> None:
        """``pods``: a session without credentials, for pods' metrics. ``windows``: by rollout, kept between looks."""
        self._cluster = cluster
        self._windows = windows
        self._looking = Looking(cluster, pods, windows)
        self._doing = Doing(cluster, self._looking)

    async def tick(self, name: str, now: datetime) -> float | None:
        """One step of a rollout; answers in how many seconds to look again, None where it is gone. Raises ApiError."""
        rollout = await self._cluster.get(ROLLOUTS, name)
        if rollout is None or rollout["metadata"].get("deletionTimestamp"):
            self._windows.pop(name, None)
            return None
        return await self._step(rollout, now)

    async def forget(self, name: str, now: datetime) -> float | None:
        """A step of a ModelRollout's deletion; answers as :meth:`tick`, None where it may go. Raises ApiError."""
        rollout = await self._cluster.get(ROLLOUTS, name)
        self._windows.pop(name, None)
        if rollout is None:
            return None
        status = Status.parse(rollout.get("status") or {})
        if is_half_switched(rollout, status, now):
            return await self._step(rollout, now)
        spec = _spec(rollout, status)
        if isinstance(spec, Spec):
            await let_go(self._cluster, self._doing, rollout, spec, status)
        return None

    async def _step(self, rollout: JsonObject, now: datetime) -> float:
        before = Status.parse(rollout.get("status") or {})
        generation = int(rollout["metadata"].get("generation", 0))
        spec = _spec(rollout, before)
        if isinstance(spec, SpecError):  # nothing runs, and nothing can
            refused = replace(before, phase=before.phase or "Pending", message=str(spec))
            after = with_conditions(refused, Observation(), generation, now, fault=str(spec))
            if await self._write(rollout, before, after):
                await self._tell(rollout, condition_events(before, after), now)
            return IDLE_SECONDS
        seen = await self._looking.observe(rollout, spec, before, now)
        decision = decide(spec, before, seen, now)
        after = with_conditions(decision.status, seen, generation, now, fault=decision.fault, is_paused=spec.paused)
        if not await self._write(rollout, before, after):
            return CONFLICT_SECONDS
        await self._tell(rollout, (*decision.events, *condition_events(before, after)), now)
        await self._doing.apply(rollout, spec, after.rollout_id, decision.desired)
        return decision.next_seconds

    async def _write(self, rollout: JsonObject, before: Status, after: Status) -> bool:
        """Write the status where it changed; False where somebody else changed the object meanwhile."""
        wanted = after.to_json()
        if wanted == before.to_json():
            return True
        metadata = rollout["metadata"]
        version = {"resourceVersion": metadata["resourceVersion"]} if "resourceVersion" in metadata else {}
        try:
            await self._cluster.patch(ROLLOUTS, metadata["name"], {"metadata": version, "status": wanted}, "status")
        except ApiError as error:
            if error.status == 409:
                log.info("rollout %s changed meanwhile, looking again", metadata["name"])
                return False
            raise
        if after.phase != before.phase:
            log.info("rollout %s: %s -> %s: %s", metadata["name"], before.phase or "new", after.phase, after.message)
            METRICS.phases.labels(after.phase).inc()
        return True

    async def _tell(self, rollout: JsonObject, events: tuple[Event, ...], now: datetime) -> None:
        metadata = rollout["metadata"]
        reference = {
            "apiVersion": f"{objects.GROUP}/v1alpha1", "kind": "ModelRollout", "name": metadata["name"],
            "namespace": self._cluster.namespace, "uid": metadata.get("uid", ""),
        }  # fmt: skip
        for event in events:
            name = f"{metadata['name']}.{uuid.uuid4().hex[:12]}"
            body = {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": name, "namespace": self._cluster.namespace},
                "involvedObject": reference,
                "type": event.type,
                "reason": event.reason,
                "message": event.message[:1000],
                "source": {"component": "feedmill-rollouts"},
                "firstTimestamp": stamp(now),
                "lastTimestamp": stamp(now),
                "count": 1,
            }
            try:
                await self._cluster.create(EVENTS, body)
            except ApiError as error:  # an event is a courtesy
                log.warning("no event: %s", error)


def _spec(rollout: JsonObject, status: Status) -> Spec | SpecError:
    """Where a rollout runs, with enough to go back whatever the spec says now."""
    is_running = status.phase not in BEGINNING | FINAL
    if is_running:
        return read_spec(rollout.get("spec") or {}, status.worker, status.target)
    found = read_spec(rollout.get("spec") or {}, "", "")
    if isinstance(found, SpecError) and status.phase in FINAL:
        return read_spec(rollout.get("spec") or {}, status.worker, status.target)
    return found


def utc_now() -> datetime:
    return datetime.now(UTC)
