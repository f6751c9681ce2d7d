"""Windows, as far as another system can simulate it: no flock, no fork, and open files cannot be renamed."""

import errno
import ntpath
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import cases
import headrace as hr
from headrace._base import output as _output
from headrace._base import platform as _platform
from headrace._cli import kept_scores as parts

needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open files are not to be seen")

# The first lines of a process, which make it resemble a process on Windows.
WITHOUT_POSIX = """
import os, sys
import numpy, tqdm
sys.modules["fcntl"] = None
for name in ("fork", "register_at_fork", "sched_getaffinity", "sched_setaffinity", "fchmod", "getuid", "O_CLOEXEC"):
    if hasattr(os, name): delattr(os, name)
sys.platform = "win32"
"""


def is_open(path):
    """Whether this process has the file open."""
    for file in os.listdir("/proc/self/fd"):
        try:
            if os.path.samefile(f"/proc/self/fd/{file}", path):
                return True
        except OSError:  # a descriptor of the folder, or one without a file
            continue
    return False


@pytest.fixture
def windows(monkeypatch):
    """Make renaming and removing of open files fail, as on Windows."""

    def refusing(function):
        def checked(*paths):
            for path in paths:
                if os.path.exists(path) and is_open(path):
                    raise PermissionError(errno.EACCES, "The process cannot access the file", path)
            return function(*paths)

        return checked

    monkeypatch.setattr(_platform, "fcntl", None)
    monkeypatch.setattr(_platform, "_PATIENCE", 0.1)
    monkeypatch.delattr(os, "fchmod")
    for name in ("replace", "unlink"):
        monkeypatch.setattr(os, name, refusing(getattr(os, name)))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@needs_proc
def test_a_file_is_written_and_replaced(windows, tmp_path):
    for features in (2, 3):
        hr.MAF(features).save(tmp_path / "file")
        assert hr.load(tmp_path / "file").features == features
        assert names(tmp_path) == ["file"]


@needs_proc
@pytest.mark.parametrize("where", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError("no space left on device"), KeyboardInterrupt()])
def test_a_failed_save_leaves_the_old_file_and_nothing_else(where, error, windows, tmp_path, monkeypatch):
    hr.MAF(2).save(tmp_path / "file")

    def fail(*args):
        raise error

    monkeypatch.setattr(os, where, fail)
    with pytest.raises(type(error)):
        hr.MAF(3).save(tmp_path / "file")
    assert hr.load(tmp_path / "file").features == 2
    assert names(tmp_path) == ["file"]


@needs_proc
def test_a_file_that_stays_open_is_named(windows, tmp_path):
    path = tmp_path / "file"
    hr.MAF(2).save(path)
    with path.open("rb"), pytest.raises(PermissionError) as error:
        hr.MAF(3).save(path)
    cases.assert_says(error, "^path: expected a file that no process has open, got", re.escape(str(path)))
    assert hr.load(path).features == 2
    assert names(tmp_path) == ["file"]


@needs_proc
def test_a_file_is_replaced_once_its_reader_has_done(windows, tmp_path, monkeypatch):
    path = tmp_path / "file"
    hr.MAF(2).save(path)
    reader = path.open("rb")
    monkeypatch.setattr(_platform, "_PATIENCE", 60.0)
    monkeypatch.setattr(_platform.time, "sleep", lambda seconds: reader.close())
    hr.MAF(3).save(path)
    assert hr.load(path).features == 3


@needs_proc
def test_temporary_files_of_a_living_process_are_kept(windows, tmp_path):
    path = str(tmp_path / "file")
    with _output.replacing(path) as stream:
        stream.write(b"first")
        mine = names(tmp_path)
        assert [Path(name).suffix for name in mine] == [".lock", ".tmp"]
        _output.check_writable("path", path)
        hr.MAF(2).save(path)
        assert names(tmp_path) == [*mine, "file"]
    assert Path(path).read_bytes() == b"first"
    assert names(tmp_path) == ["file"]


@needs_proc
def test_a_complete_file_that_waits_for_its_name_is_kept(windows, tmp_path, monkeypatch):
    path, replace = tmp_path / "file", os.replace

    def late(*paths):  # another process has closed the file by now
        monkeypatch.setattr(os, "replace", replace)
        hr.MAF(3).save(path)
        replace(*paths)

    monkeypatch.setattr(os, "replace", late)
    hr.MAF(2).save(path)
    assert hr.load(path).features == 2
    assert names(tmp_path) == ["file"]


@needs_proc
def test_temporary_files_of_a_killed_process_are_removed(windows, tmp_path):
    script = WITHOUT_POSIX + "import headrace as hr; os.fsync = lambda file: os._exit(9); hr.MAF(3).save(sys.argv[1])"
    command = [sys.executable, "-c", script, str(tmp_path / "file")]
    assert subprocess.run(command, check=False).returncode == 9
    assert len(names(tmp_path)) == 2
    hr.MAF(2).save(tmp_path / "file")
    assert names(tmp_path) == ["file"]


def test_without_posix_a_flow_is_fitted_saved_and_used(tmp_path):
    script = (
        WITHOUT_POSIX
        + """
import headrace as hr
from headrace._cli import cli
x = numpy.random.default_rng(0).normal(size=(200, 2))
flow = hr.MAF(2, transforms=1, hidden=(4,), seed=0)
flow.fit(x, epochs=1, seed=0, progress=False)
flow.save("flow")
numpy.savetxt("x.csv", x, delimiter=",", header="a,b", comments="")
print(cli.main(["score", "flow", "x.csv", "-o", "scores/"]), os.listdir("scores"))
"""
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("0 [")


@pytest.mark.parametrize(
    ("path", "is_folder", "without"),
    [
        ("a\\b\\", True, "a\\b"),
        ("a/b/", True, "a/b"),
        ("a\\b/\\", True, "a\\b"),
        ("C:\\", True, "C:\\"),
        ("a\\b.csv", False, "a\\b.csv"),
    ],
)
def test_a_folder_ends_in_either_separator_on_windows(path, is_folder, without, monkeypatch):
    monkeypatch.setattr(os, "path", ntpath)
    monkeypatch.setattr(os, "sep", "\\")
    monkeypatch.setattr(os, "altsep", "/")
    assert _platform.ends_in_separator(path) == is_folder
    assert parts.is_folder(path) == is_folder
    assert _platform.without_separator(path) == without


def test_a_folder_ends_in_a_slash_elsewhere():
    assert [_platform.ends_in_separator(path) for path in ("a/", "a\\", "a")] == [True, False, False]
    assert [_platform.without_separator(path) for path in ("a/b//", "/", "a")] == ["a/b", "/", "a"]


# ---- a core that cannot be loaded -----------------------------------------------------------------------------------


def import_from(tmp_path, *built):
    """The output of `import headrace`, from a copy of the package with other compiled modules."""
    copy = tmp_path / "headrace"
    copy.mkdir()
    for path in Path(hr.__file__).parent.iterdir():
        if path.suffix not in (".so", ".pyd") and path.name != "__pycache__":
            (copy / path.name).symlink_to(path)
    for name, content in built:
        (copy / name).write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", "import headrace"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    return done.stderr.splitlines()[-1]


def test_a_wheel_of_another_platform_is_an_error_that_names_both(tmp_path):
    text = import_from(tmp_path, ("_cpu.cpython-399-other.so", b""))
    assert text.startswith("ImportError: headrace: expected a compiled core for this Python (")
    assert sys.implementation.cache_tag in text
    assert "got _cpu.cpython-399-other.so; install a wheel for this platform" in text


def test_a_core_that_cannot_be_loaded_is_an_error_with_its_reason(tmp_path):
    name = Path(hr._core.cpu.__file__).name
    text = import_from(tmp_path, (name, b"this is no library"))
    assert text.startswith("ImportError: headrace: its compiled core cannot be loaded on this system")


def test_an_old_c_library_is_named():
    error = ImportError("/lib/libc.so.6: version `GLIBC_2.99' not found (required by _cpu.so)")
    assert "needs a newer C library than this system's" in _platform.why_no_core(error)
    assert "GLIBC_2.99" in _platform.why_no_core(error)
