"""``feedmill-rollouts`` (or ``python -m feedmill_rollouts``): run the operator in one namespace until SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path

import kopf
from aiohttp import web
from kopf import OperatorRegistry

from feedmill_rollouts.metrics import application
from feedmill_rollouts.operator import Rollouts

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


async def run(namespace: str, host: str, port: int) -> None:
    """Watch the namespace until a signal; then let the daemons end."""
    rollouts = Rollouts(namespace)
    registry = OperatorRegistry()
    rollouts.register(registry)
    stop, ready = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    runner = web.AppRunner(application(ready.is_set, lambda: rollouts.last_tick))
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    kindness = asyncio.create_task(rollouts.keep_costs(), name="deletion-costs")
    try:
        await kopf.operator(registry=registry, namespaces=[namespace], stop_flag=stop, ready_flag=ready)
    finally:
        kindness.cancel()
        with suppress(asyncio.CancelledError):
            await kindness
        await runner.cleanup()


def main() -> None:
    """The command. Exit code 0 after a signal."""
    parser = argparse.ArgumentParser(
        prog="feedmill-rollouts",
        description="Feedmill's rollout operator: follows the ModelRollouts of one namespace (docs/rollouts.md).",
    )
    own = NAMESPACE_FILE.read_text().strip() if NAMESPACE_FILE.exists() else "default"
    parser.add_argument("--namespace", default=os.environ.get("FEEDMILL_NAMESPACE") or own, help="default: %(default)s")
    parser.add_argument("--host", default="0.0.0.0", help="of the probes; default: %(default)s")  # noqa: S104 (the kubelet)
    parser.add_argument("--port", type=int, default=8080, help="of the probes; default: %(default)s")
    parser.add_argument("--log-format", choices=("full", "json"), default="json", help="default: %(default)s")
    options = parser.parse_args()
    kopf.configure(log_format=kopf.LogFormat[options.log_format.upper()])
    asyncio.run(run(options.namespace, options.host, options.port))


if __name__ == "__main__":
    main()
