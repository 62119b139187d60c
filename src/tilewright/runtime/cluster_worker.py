"""The worker's side of a cluster: one Dask worker that builds and measures, one request at a time.

``python -m tilewright.runtime.cluster_worker ADDRESS`` joins the scheduler at ADDRESS. The worker
offers each machine it can run code for as one unit of a Dask resource, named by the machine's key: a
request takes the unit, so nothing else is built or measured here meanwhile, whoever asks.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import pickle
import platform
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from distributed import Nanny, Worker, WorkerPlugin, get_worker

from tilewright.hw.load import load_machine
from tilewright.runtime.cache import toolchain
from tilewright.runtime.jobs import Job, Limits, Outcome
from tilewright.runtime.pool import available_cpus
from tilewright.runtime.records.record import host_name
from tilewright.runtime.records.task import machine_key
from tilewright.runtime.workers import Workers
from tilewright.util.errors import RuntimeFailure
from tilewright.util.version import __version__

#: The resource that says how many processors a worker has.
PROCESSORS = "processors"
#: Seconds a worker looks for its scheduler before it gives up.
DEATH_TIMEOUT = 60.0


@cache
def identity() -> str:
    """What has to be equal on both sides, for people: versions, and a digest of the sources that make code."""
    llvm, llvmlite, sources = toolchain()
    python = ".".join(platform.python_version_tuple()[:2])
    return f"Tilewright {__version__} (sources {sources[:12]}), llvmlite {llvmlite} with LLVM {llvm}, Python {python}"


class Bench(WorkerPlugin):
    """What a Dask worker holds for us: the processes that build and measure."""

    name = "tilewright"

    def __init__(self) -> None:
        self._workers: Workers | None = None

    def workers(self, limits: Limits) -> Workers:
        """The processes, started again when a tuner asks for other limits."""
        if self._workers is None or self._workers.limits != limits:
            self.close()
            self._workers = Workers(limits=limits)
        return self._workers

    def close(self) -> None:
        """End the processes."""
        if self._workers is not None:
            self._workers.close()
            self._workers = None

    def teardown(self, worker: Worker) -> None:
        """The Dask worker closes."""
        self.close()


def run_jobs(asked_by: str, limits: Limits, blob: bytes) -> list[Outcome]:
    """Outcomes of the pickled jobs ``blob``. Runs in a Dask worker."""
    return _here(_bench(asked_by).workers(limits).run(_jobs(blob)))


def compare_jobs(asked_by: str, limits: Limits, blob: bytes, rounds: int) -> list[Outcome]:
    """Outcomes of the pickled jobs ``blob``, timed in turns. Runs in a Dask worker."""
    return _here(_bench(asked_by).workers(limits).compare(_jobs(blob), rounds))


def _here(outcomes: list[Outcome]) -> list[Outcome]:
    return [replace(o, host=host_name()) for o in outcomes]


def _bench(asked_by: str) -> Bench:
    worker = get_worker()
    if (mine := identity()) != asked_by:
        raise RuntimeFailure(
            f"the worker {worker.address} has {mine}, the tuner has {asked_by}", hint="install the same versions on both and start it again"
        )
    bench = worker.plugins.get(Bench.name)
    if not isinstance(bench, Bench):
        raise RuntimeFailure(f"the worker {worker.address} is a plain Dask worker", hint="start workers with `tilewright worker ADDRESS`")
    return bench


def _jobs(blob: bytes) -> list[Job]:
    jobs: list[Job] = pickle.loads(blob)
    return jobs


def resources(machines: Sequence[str]) -> dict[str, float]:
    """What a worker for ``machines`` (names that `load_machine` knows) offers to the scheduler."""
    offered = {machine_key(load_machine(name)): 1.0 for name in machines}
    return {**offered, PROCESSORS: float(len(available_cpus()))}


def serve(address: str, machines: Sequence[str] = ("host",), *, restart: bool = True) -> None:
    """Join the scheduler at ``address`` and work until it ends, or a signal does.

    ``restart``: a parent process starts the worker again when it is killed. RuntimeFailure when no
    scheduler answers within a minute.
    """
    offered = resources(machines)
    options: dict[str, Any] = {"nthreads": 1, "memory_limit": 0, "resources": offered, "death_timeout": DEATH_TIMEOUT}
    options["plugins"] = (Bench(),)

    async def work() -> None:
        async with (Nanny if restart else Worker)(address, **options) as worker:
            await worker.finished()

    try:
        asyncio.run(work())
    except (OSError, ValueError, RuntimeError) as error:  # a nanny wraps what keeps it from starting; an address may be none
        raise RuntimeFailure(
            f"no scheduler answers at {address}: {error.__cause__ or error}",
            hint="start one with `dask scheduler`, and name its address, e.g. tcp://10.0.0.1:8786",
        ) from error
    except KeyboardInterrupt:
        return


def main(arguments: list[str] | None = None) -> None:
    """The worker's command line (``tilewright worker`` is the one for people)."""
    parser = argparse.ArgumentParser(prog="tilewright.runtime.cluster_worker")
    parser.add_argument("address")
    parser.add_argument("--machine", action="append", default=[])
    parser.add_argument("--cpus", help="processors to stay on, e.g. 0,1")
    parser.add_argument("--no-restart", action="store_true")
    options = parser.parse_args(arguments)
    if options.cpus:
        os.sched_setaffinity(0, {int(c) for c in options.cpus.split(",")})
    serve(options.address, options.machine or ["host"], restart=not options.no_restart)


if __name__ == "__main__":
    # Under its own name, not as __main__: what it sends and is sent names this module's classes.
    from tilewright.runtime import cluster_worker

    cluster_worker.main()
