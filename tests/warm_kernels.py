"""Kernels for the notebooks' tests, forked from one process that has imported the heavy libraries already.

A notebook takes a second or two of work before its first cell runs, nearly all of it the imports of Jupyter and
pandas; with one kernel per notebook that would be a third of the whole suite. A fork starts with an empty namespace
like any other kernel: only what is imported is imported faster.

They are spoken to through sockets that are files: of the free ports that Jupyter finds for a kernel, one is taken now
and then by a test beside it before the kernel is there, and then the kernel dies.
"""

import multiprocessing
import os
import signal
import tempfile
from itertools import count
from multiprocessing.connection import Connection
from typing import Any

import nbval.kernel
from jupyter_client.manager import KernelManager
from jupyter_client.provisioning import local_provisioner

PRELOADED = ["ipykernel.kernelapp", "pandas", "matplotlib.pyplot", "numba", "pyarrow.parquet", "structlog"]
PRELOADED += ["pydantic_settings", "sqlalchemy", "aiohttp.web", "ccxt.pro"]  # nothing of ours: it may have changed
_server = multiprocessing.get_context("forkserver")


def _run(arguments: list[str], folder: str, env: dict[str, str], started: Connection) -> None:
    from ipykernel.kernelapp import IPKernelApp

    os.setsid()  # jupyter_client ends a kernel together with its whole group
    started.send(True)
    os.chdir(folder)
    os.environ.update(env)
    IPKernelApp.launch_instance(argv=arguments)


class ForkedKernel:
    """The part of a Popen that jupyter_client uses."""

    stdin = stdout = stderr = None

    def __init__(self, arguments: list[str], folder: str, env: dict[str, str]) -> None:
        ours, theirs = _server.Pipe()
        self._process = _server.Process(target=_run, args=(arguments, folder, env, theirs))
        self._process.start()
        ours.recv()
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> int | None:
        self._process.join()
        return self._process.exitcode

    def send_signal(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def _launch(cmd: list[str], cwd: str | None = None, env: dict[str, str] | None = None, **_) -> ForkedKernel:
    at = cmd.index("-f")  # python -m ipykernel_launcher -f CONNECTION_FILE
    return ForkedKernel(cmd[at:], cwd or os.getcwd(), env or {})


def install() -> str:  # the folder of the kernels' sockets, to be removed by whoever asked
    """Let nbval start kernels this way in this process."""
    place, numbers = tempfile.mkdtemp(prefix="kernels-"), count()

    def manager(**named: Any) -> KernelManager:
        at = f"{place}/{next(numbers)}"
        return KernelManager(**named, transport="ipc", ip=at, connection_file=f"{at}.json")

    _server.set_forkserver_preload(PRELOADED)
    local_provisioner.launch_kernel = _launch
    nbval.kernel.KernelManager = manager
    return place
