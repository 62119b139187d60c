"""The main program of a worker process: ``python -m tilewright.runtime.serve build|measure DESCRIPTOR``.

A builder schedules and compiles one job after the other. The measurer forks a child for each
candidate: whatever the candidate does to its memory, it does to a copy, and the next one starts
from the same state. (Forking is safe here and only here: this process never starts a thread.)

Time limits are interval timers whose signal is left at its default, so the kernel ends a process
that hangs in native code; memory limits are address-space limits. Nobody has to watch anybody.
"""

from __future__ import annotations

import gc
import os
import pickle
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

from tilewright.ir.stmt import Kernel
from tilewright.runtime import trial
from tilewright.runtime.jobs import Job, Limits, Outcome
from tilewright.runtime.pool import available_cpus
from tilewright.runtime.processors import quiet_cpus, spread_threads
from tilewright.util.errors import RuntimeFailure, TilewrightError

#: A builder that has grown by this share of its limit is replaced before the next job.
RETIRE = 0.5


class Retired(Exception):
    """The tuner is gone, or no longer wants this worker."""


def main(arguments: list[str]) -> None:
    """Serve requests until the other end of the connection closes."""
    kind, descriptor = arguments
    connection = Connection(int(descriptor))
    limits: Limits = connection.recv()
    serve = build_jobs if kind == "build" else measure_jobs
    try:
        serve(connection, limits)
    except (EOFError, BrokenPipeError, ConnectionResetError, Retired):
        return


def build_jobs(connection: Connection, limits: Limits) -> None:
    """Answer each Job by (pickled Built or None, Outcome, whether this worker wants to be replaced)."""
    import tilewright.codegen.llvm  # noqa: F401 (loaded before the limit is set: it is not the candidate's memory)

    idle = resident_bytes()
    limit_memory(limits.memory)
    connection.send("ready")
    while True:
        job: Job = connection.recv()
        start = time.perf_counter()
        with_timer(limits.build)
        blob, outcome = build(job)
        with_timer(0.0)
        outcome = replace(outcome, build_seconds=time.perf_counter() - start)
        connection.send((blob, outcome, resident_bytes() - idle > RETIRE * limits.memory))


def build(job: Job) -> tuple[bytes | None, Outcome]:
    """Schedule and compile; whatever is raised becomes the outcome's message."""
    try:
        built = trial.construct(job.kernel, job.trace, trial.machine_of(job))
        return pickle.dumps(built, pickle.HIGHEST_PROTOCOL), Outcome("ok", trace=built.trace)
    except MemoryError:
        return None, Outcome("memory", message="building it took more memory than allowed")
    except TilewrightError as error:
        return None, Outcome("build_error", message=str(error))
    except Exception as error:  # a candidate may hit a bug anywhere in the compiler: that is its outcome, not the session's end
        return None, Outcome("build_error", message=f"{type(error).__name__}: {error}")


def measure_jobs(connection: Connection, limits: Limits) -> None:
    """Answer each ("run", Job, blob) by an Outcome, each ("compare", [Job], [blob], rounds) by a list of them."""
    from tilewright.runtime import jit, pool

    pool.native()
    jit._linker()
    gc.freeze()
    known: dict[tuple[Kernel, int, tuple[str, ...]], trial.Data] = {}
    cpus = available_cpus()
    connection.send("ready")
    while True:
        request, *arguments = connection.recv()
        job: Job = arguments[0] if request == "run" else arguments[0][0]
        # A child inherits the processors: its threads, made later, cannot leave them.
        os.sched_setaffinity(0, cpus)
        os.sched_setaffinity(0, quiet_cpus(job.threads))
        if request == "compare":
            connection.send(in_child(connection, partial(compare, *arguments), limits, len(arguments[0])))
            continue
        key = (job.kernel, job.seed, job.unaligned)
        if key not in known:
            data = in_child(connection, partial(trial.make_data, job.kernel, job.seed), limits, 10)
            if isinstance(data, Outcome):
                connection.send(replace(data, message=f"the reference of {job.kernel.name} cannot be computed: {data.message}"))
                continue
            known = {key: trial.placed(data, job.unaligned)}
        start = time.perf_counter()
        result = in_child(connection, partial(run, job, arguments[1], known[key]), limits)
        outcome = result if isinstance(result, Outcome) else Outcome("ok", result)
        connection.send(replace(outcome, run_seconds=time.perf_counter() - start))


def run(job: Job, blob: bytes, data: trial.Data) -> tuple[float, ...] | Outcome:
    """Verify a candidate, then time it."""
    module = trial.load(pickle.loads(blob), trial.machine_of(job), job.threads)
    try:
        trial.verify(module, job.kernel, data, job.seed)
    except RuntimeFailure as error:
        return Outcome("wrong", message=error.message)
    spread_threads(available_cpus())  # those of the pool too, which the verification has started
    return trial.sample(trial.bind(module, data), job.bar)


def compare(jobs: list[Job], blobs: list[bytes], rounds: int) -> list[tuple[float, ...]] | Outcome:
    """Samples of each job from the same rounds; the outcome "wrong" when one of them is."""
    modules = [trial.load(pickle.loads(b), trial.machine_of(j), j.threads) for j, b in zip(jobs, blobs, strict=True)]
    try:
        return trial.compare(jobs[0].kernel, modules, rounds, jobs[0].seed + 1, jobs[0].unaligned)
    except RuntimeFailure as error:
        return Outcome("wrong", message=error.message)


def in_child(connection: Connection, work: Callable[[], Any], limits: Limits, patience: int = 1) -> Any:
    """The result of ``work`` done in a forked child, or the Outcome that says how the child ended instead."""
    for last in (False, True):
        receive, send = Pipe(duplex=False)
        child = os.fork()
        if child == 0:
            receive.close()
            _child(send, work, limits, patience)
        send.close()
        try:
            result, status = _await(connection, receive, child)
        finally:
            receive.close()
        # SIGKILL is none of our limits: somebody else's doing (or the system's, short of memory), so it gets a second chance.
        if result is not None or last or not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
            break
    return ended(status, limits.run * patience) if result is None else result


def _child(send: Connection, work: Callable[[], Any], limits: Limits, patience: int) -> None:
    """Do the work, send what came of it, and end without Python's good-byes."""
    gc.disable()
    limit_memory(limits.memory)
    with_timer(limits.run * patience)
    try:
        result = work()
    except MemoryError:
        result = Outcome("memory", message="running it took more memory than allowed")
    except TilewrightError as error:
        result = Outcome("crash", message=str(error))
    except Exception as error:  # the same as in build
        result = Outcome("crash", message=f"{type(error).__name__}: {error}")
    send.send(result)
    os._exit(0)


def _await(connection: Connection, receive: Connection, child: int) -> tuple[Any, int]:
    """(what the child sent or None, its exit status). A child does not outlive the tuner."""
    result = None
    try:
        if receive not in wait([receive, connection]):
            raise Retired
        result = receive.recv()
    except EOFError:
        pass
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        _, status = os.waitpid(child, 0)
    return result, status


def ended(status: int, allowed: float) -> Outcome:
    """The outcome of a process that ended without an answer."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number == signal.SIGALRM:
            return Outcome("timeout", message=f"still running after {allowed:g} s")
        return Outcome("crash", message=f"killed by {signal.Signals(number).name}")
    return Outcome("crash", message=f"exited with status {os.waitstatus_to_exitcode(status)}")


def with_timer(seconds: float) -> None:
    """End this process by SIGALRM in so many seconds (0: not)."""
    signal.setitimer(signal.ITIMER_REAL, seconds)


def limit_memory(beyond: int) -> None:
    """Let this process's address space grow by ``beyond`` bytes and no more; no core files."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_AS)  # what the user's shell or batch system allows stays the most
    allowed = pages(0) + beyond
    resource.setrlimit(resource.RLIMIT_AS, (allowed if most == resource.RLIM_INFINITY else min(allowed, most), most))


def resident_bytes() -> int:
    """Memory of this process that is in use now."""
    return pages(1)


def pages(column: int) -> int:
    """A column of /proc/self/statm (0: address space, 1: resident), in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[column]) * resource.getpagesize()


if __name__ == "__main__":
    main(sys.argv[1:])
