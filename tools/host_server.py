"""Starts a real ComfyUI with this pack, and talks to it as any client does: HTTP to queue, a websocket to
wait.

Used by the demo, the server and browser tests, and `make ui`. Needs nothing but aiohttp and psutil, which the
host has.
"""

import asyncio
import atexit
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from locations import ROOT, host_python, host_tree

DEMO_NODES = ROOT / "demo" / "omnicache_demo"
DEMO_MODELS = ROOT / "demo" / "models"
PACK = "ComfyUI-OmniCache"

Event = dict[str, Any]


class PromptFailed(RuntimeError):
    """The host refused a prompt, or a node of it failed; the message is the host's."""


class HostServer:
    """A ComfyUI on a free loopback port, in a folder of its own, stopped when the `with` block ends.

    frontend: folder of another front-end than the installed one. port: 0 for any free one.
    """

    def __init__(self, frontend: Path | None = None, port: int = 0) -> None:
        self._frontend = frontend
        self._port = port or _free_port()
        self.client_id = uuid.uuid4().hex
        self.address = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen | None = None
        self.base = Path(tempfile.mkdtemp(prefix="omnicache-host-"))
        self.log = self.base / "server.log"

    def __enter__(self) -> "HostServer":
        try:
            self._prepare()
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends the host and removes its folder. Does nothing the second time."""
        self._end()
        shutil.rmtree(self.base, ignore_errors=True)

    def restart(self) -> None:
        """Ends the host and starts it again with the same folder and port; the log begins anew."""
        self._end()
        self._start()

    def queue(self, prompt: dict[str, Any]) -> str:
        """Queues a prompt in API format without waiting for it, and returns its id."""
        body = json.dumps({"prompt": prompt, "client_id": self.client_id}).encode()
        with urllib.request.urlopen(f"{self.address}/prompt", data=body, timeout=60) as answer:
            return json.load(answer)["prompt_id"]

    def _end(self) -> None:
        atexit.unregister(self.stop)
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()

    def get(self, path: str) -> Any:
        """The JSON answer to a GET."""
        with urllib.request.urlopen(self.address + path, timeout=60) as answer:
            return json.load(answer)

    def object_info(self) -> dict[str, Any]:
        return self.get("/object_info")

    def history(self, prompt_id: str) -> dict[str, Any]:
        """What the host remembers of a finished prompt."""
        return self.get(f"/history/{prompt_id}")[prompt_id]

    def view(self, image: dict[str, str]) -> bytes:
        """The bytes of a picture named in an output of the history."""
        with urllib.request.urlopen(
            f"{self.address}/view?{urllib.parse.urlencode(image)}", timeout=60
        ) as answer:
            return answer.read()

    def memory_mb(self) -> float:
        """Resident memory of the host's process."""
        return psutil.Process(self._process.pid).memory_info().rss / 1e6

    def run(
        self,
        prompt: dict[str, Any],
        on_event: Callable[[Event], None] | None = None,
        timeout: float = 600,
        extra_data: dict[str, Any] | None = None,
    ) -> dict:
        """Queues a prompt in API format, waits for it and returns its history. extra_data: what a client
        sends beside it, such as what goes into saved files. Raises PromptFailed."""
        running = self._run(prompt, on_event, extra_data or {})
        return self.history(asyncio.run(asyncio.wait_for(running, timeout)))

    async def _run(
        self, prompt: dict[str, Any], on_event: Callable[[Event], None] | None, extra_data: dict[str, Any]
    ) -> str:
        """Listens before it queues, so that no message is lost."""
        async with (
            aiohttp.ClientSession(self.address) as session,
            session.ws_connect(f"/ws?clientId={self.client_id}", max_msg_size=0) as socket_,
        ):
            async with session.post(
                "/prompt", json={"prompt": prompt, "client_id": self.client_id, "extra_data": extra_data}
            ) as answer:
                body = await answer.json()
                # The host accepts a prompt of which a part is wrong, and leaves that part out.
                if answer.status != 200 or body.get("node_errors"):
                    raise PromptFailed(_refusal(body))
            async for message in socket_:
                if message.type != aiohttp.WSMsgType.TEXT:
                    continue
                event = json.loads(message.data)
                if on_event is not None:
                    on_event(event)
                data = event.get("data", {})
                if event["type"] == "execution_error" and data["prompt_id"] == body["prompt_id"]:
                    raise PromptFailed(f"{data['node_type']}: {data['exception_message'].strip()}")
                if (
                    event["type"] == "executing"
                    and data["node"] is None
                    and data["prompt_id"] == body["prompt_id"]
                ):
                    return body["prompt_id"]
        raise PromptFailed(f"The host closed the connection.\n{self._log_tail()}")

    def _prepare(self) -> None:
        nodes = self.base / "custom_nodes"
        nodes.mkdir()
        (nodes / PACK).symlink_to(ROOT)
        (nodes / DEMO_NODES.name).symlink_to(DEMO_NODES)
        settings = self.base / "user" / "default" / "comfy.settings.json"
        settings.parent.mkdir(parents=True)
        # Without this the front-end opens a template over the first workflow.
        settings.write_text(json.dumps({"Comfy.TutorialCompleted": True}))
        folders = "".join(f"  {name}: {name}\n" for name in ("diffusion_models", "diffusers"))
        paths = f"demo:\n  base_path: {DEMO_MODELS}\n{folders}"
        (self.base / "model_paths.yaml").write_text(paths)

    def _start(self) -> None:
        command = [
            str(host_python()), str(host_tree() / "main.py"), "--port", str(self._port),
            "--listen", "127.0.0.1",
            "--base-directory", str(self.base), "--database-url", f"sqlite:///{self.base}/host.db",
            "--extra-model-paths-config", str(self.base / "model_paths.yaml"),
            "--disable-auto-launch", "--disable-api-nodes",
        ]  # fmt: skip
        if not _has_cuda():
            command.append("--cpu")
        if self._frontend is not None:
            command += ["--front-end-root", str(self._frontend)]
        atexit.register(self.stop)
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            # The host has a session of its own, so it would outlive a parent that is told to end.
            signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        with open(self.log, "w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, cwd=self.base, start_new_session=True
            )
        started = time.monotonic()
        while time.monotonic() - started < 180:
            if self._process.poll() is not None:
                raise RuntimeError(f"The host ended while starting:\n{self._log_tail()}")
            try:
                self.get("/system_stats")
                return
            except (OSError, urllib.error.URLError):
                time.sleep(0.2)
        raise RuntimeError(f"The host did not answer within 180 s:\n{self._log_tail()}")

    def _log_tail(self) -> str:
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-25:])


def _refusal(body: dict[str, Any]) -> str:
    lines = [body.get("error", {}).get("message", "A part of the prompt was refused")]
    for node in body.get("node_errors", {}).values():
        lines += [f"{node['class_type']}: {e['message']}: {e['details']}" for e in node["errors"]]
    return "\n".join(lines)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _has_cuda() -> bool:
    code = "import torch, sys; sys.exit(0 if torch.cuda.is_available() else 1)"
    return subprocess.run([str(host_python()), "-c", code], capture_output=True).returncode == 0


if __name__ == "__main__":
    with HostServer(port=int(os.environ.get("PORT", "0"))) as server:
        print(f"ComfyUI with OmniCache and the demo models: {server.address}   (Ctrl-C stops it)", flush=True)
        try:
            while True:
                time.sleep(1)
        except KeyboardInterrupt:
            print("Stopped.")
