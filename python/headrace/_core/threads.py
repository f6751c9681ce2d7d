"""The initial number of threads: a value from the environment, or the number of cores that this process may use."""

from __future__ import annotations

import os
from typing import Any

from headrace import _cpu as cpu

MOST = 4096


def begin() -> None:
    """Set the number of threads, and register the thread pool with threadpoolctl."""
    cpu.set_num_threads(first_number(os.environ))
    _register()


def first_number(environment: Any) -> int:
    """The number of threads: HEADRACE_NUM_THREADS; if unset, OMP_NUM_THREADS or MKL_NUM_THREADS, which launchers of
    several processes set; if all are unset, the number of cores.
    """
    text = environment.get("HEADRACE_NUM_THREADS", "")
    if text:
        if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:9]) <= MOST:
            raise ImportError(f"HEADRACE_NUM_THREADS: expected a number from 1 to {MOST}, got {text!r}")
        return int(text)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        outermost = environment.get(name, "").split(",")[0].strip()  # OpenMP's list is by level of nesting
        if outermost.isascii() and outermost.isdecimal() and int(outermost[:9]) >= 1:
            return min(int(outermost[:9]), MOST)
    return cores()


def cores(root: str = "/") -> int:
    """The number of cores that this process may use by its affinity, and at most the limit of its control groups."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        granted = min(_quotas(root), default=float(count))
    except (OSError, ValueError):
        granted = float(count)  # control groups are missing or have an unexpected format
    return max(1, min(count, -int(-granted // 1), MOST))


def _quotas(root: str) -> Any:
    """The limits of cores of this process's control groups, from its own group to the outermost visible one."""
    mounts = [line.split() for line in _lines(root, "proc/self/mountinfo")]
    for line in _lines(root, "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        for mount in mounts:
            # A line of mountinfo has an ID, parent, device, root, mount point, options, tags up to a dash, and the file
            # system's type.
            kind, options = mount[mount.index("-") + 1], mount[-1].split(",")
            if kind != ("cgroup" if controllers else "cgroup2") or (controllers and "cpu" not in options):
                continue
            names = os.path.relpath(path, mount[3]).split("/")
            if names[0] in (".", ".."):
                names = []
            for depth in range(len(names), -1, -1):
                quota = _quota(os.path.join(root, mount[4].lstrip("/"), *names[:depth]), bool(controllers))
                if quota is not None:
                    yield quota


def _quota(group: str, is_first_version: bool) -> float | None:
    try:
        if is_first_version:
            quota, period = ("".join(_lines(group, f"cpu.cfs_{what}_us")).strip() for what in ("quota", "period"))
        else:
            quota, period = "".join(_lines(group, "cpu.max")).split()
    except OSError:
        return None  # the outermost control group has no file of limits
    return None if quota in ("max", "-1") else int(quota) / int(period)


def _lines(*path: str) -> list[str]:
    with open(os.path.join(*path)) as file:
        return file.read().splitlines()


def _has_library() -> bool:
    """Whether the core is in the shared library beside the module, to which C programs also link."""
    return any(name.startswith("libheadrace.") for name in os.listdir(os.path.dirname(cpu.__file__)))


def _register() -> None:
    """Register the thread pool with threadpoolctl, if that is installed; joblib uses it. The import takes 4 ms."""
    try:
        import threadpoolctl  # type: ignore[import-untyped]
    except ImportError:
        return

    class Controller(threadpoolctl.LibController):  # type: ignore[misc]
        """headrace's thread pool in the form that threadpoolctl registers."""

        user_api = "headrace"
        internal_api = "headrace"
        filename_prefixes = ("libheadrace",) if _has_library() else ("_cpu",)
        check_symbols = ("headrace_get_num_threads",)

        def get_num_threads(self) -> int:
            return int(self.dynlib.headrace_get_num_threads())

        def set_num_threads(self, num_threads: int) -> None:
            self.dynlib.headrace_set_num_threads(int(num_threads))

        def get_version(self) -> str:
            return str(cpu.__version__)

    threadpoolctl.register(Controller)
