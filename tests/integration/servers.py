"""Servers that tests start, kill and freeze."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Server:
    """An MLflow server on a free port, by default on a database in its folder."""

    def __init__(self, folder: Path, database: str = "") -> None:
        self.port, self.folder = free_port(), folder
        self.address = f"http://127.0.0.1:{self.port}"
        self.database = database or f"sqlite:///{folder}/server.db"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        words = ["mlflow", "server", "--backend-store-uri", self.database]
        words += ["--port", str(self.port), "--workers", "1"]
        words += ["--artifacts-destination", str(self.folder / "artifacts")]
        self.process = subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=self.folder,
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 180
        while True:
            try:
                urllib.request.urlopen(f"{self.address}/health", timeout=1).close()
                return
            except (urllib.error.URLError, OSError):
                assert time.monotonic() < deadline, "the server did not start"
                assert self.process.poll() is None, "the server ended at once"
                time.sleep(0.2)

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()
