"""The echo worker as a process of its own: ``python -m support.echo_worker``."""

from feedmill.starting import prepare
from feedmill.worker import run_worker
from support.echo import EchoHandler, echo_kind

if __name__ == "__main__":
    prepare()
    run_worker(echo_kind(EchoHandler()))
