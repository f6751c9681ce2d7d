"""headrace.hpp as WebAssembly, run by Node: the functions of tests/runtime/library.cpp, called from Python.

``HEADRACE_EMXX=em++ pytest tests/runtime`` runs the header's tests on WebAssembly, as the nightly step `webassembly`
does. tests/support/web_speed.py prints the size of the WebAssembly, and its speed in rows a second.
"""

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np

import headrace as hr
from locks import locked

ROOT = Path(__file__).resolve().parents[2]
FLAGS = ["-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-fwasm-exceptions"]
EXPORTED = ["open_flow", "close_flow", "run_flow", "read_number", "malloc", "free"]
EXPORTED += ["open_sequences", "close_sequences", "facts_of_sequences", "open_stream", "copy_stream", "close_stream"]
EXPORTED += ["push_steps", "pull_steps", "extend_stream", "stream_state", "set_stream_state"]
SETTINGS = {
    "MODULARIZE": 1,
    "ALLOW_MEMORY_GROWTH": 1,
    "NODERAWFS": 1,  # the program opens files of the machine
    "WASM_BIGINT": 1,
    "STACK_SIZE": 1 << 20,
    "EXPORTED_FUNCTIONS": ",".join(f"_{name}" for name in EXPORTED),
    "EXPORTED_RUNTIME_METHODS": "HEAPU8",
}


def compiler():
    """Emscripten's compiler, where HEADRACE_EMXX names it; otherwise None."""
    return os.environ.get("HEADRACE_EMXX")


def compiled(folder, source):
    """The path of a script for Node, which lies beside its WebAssembly in a folder that processes share."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    script = Path(folder) / "library.js"
    with locked(script.with_suffix(".lock")):
        if not script.exists():
            settings = [f"-s{name}={value}" for name, value in SETTINGS.items()]
            command = [compiler(), *FLAGS, f"-I{hr.config.include()}", str(source), "-o", str(script), *settings]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
    return script


class Functions:
    """The functions in a process of Node, which ends with this object; array arguments receive the function's
    results."""

    def __init__(self, script):
        node = shutil.which("node")
        assert node, "WebAssembly runs in Node: expected `node` on the path"
        command = [node, str(ROOT / "tests" / "runtime" / "web.js"), str(script)]
        self._node = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.seconds = 0.0  # processor time of the last call

    def __del__(self):
        if hasattr(self, "_node"):
            self._node.stdin.close()
            self._node.stdout.close()
            self._node.wait()

    def __call__(self, name, returns, *given):
        self._node.stdin.write(json.dumps({"name": name, "returns": returns, "given": list(map(_passed, given))}))
        self._node.stdin.write("\n")
        self._node.stdin.flush()
        line = self._node.stdout.readline()
        assert line, f"Node ended in {name}: exit status {self._node.wait()}"
        answer = json.loads(line)
        self.seconds = answer["seconds"]
        buffers = [value for value in given if isinstance(value, (bytes, np.ndarray))]
        for buffer, back in zip(buffers, answer["back"], strict=True):
            if isinstance(buffer, np.ndarray):
                buffer[...] = np.frombuffer(base64.b64decode(back), buffer.dtype).reshape(buffer.shape)
        return answer["result"]


def _passed(value):
    if isinstance(value, (bytes, np.ndarray)):
        data = value if isinstance(value, bytes) else value.tobytes()
        return {"kind": "bytes", "value": base64.b64encode(data).decode()}
    if isinstance(value, np.uint64):
        return {"kind": "long", "value": str(value)}
    return {"kind": "number", "value": 0 if value is None else int(value)}
