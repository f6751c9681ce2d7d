"""Writing files: paths, links and permissions, and remains of a save that fails or is killed."""

import os
import pathlib
import subprocess
import sys
import threading

import pytest

import cases
import headrace as hr


def test_paths_are_str_or_path_like(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flow = hr.MAF(2)
    for path in ("plain", tmp_path / "with folder", pathlib.Path("dot.safetensors"), "ünïcode 你好"):
        flow.save(path)
        assert type(hr.load(path)) is hr.MAF
        assert type(hr.load(str(path))) is hr.MAF


@pytest.mark.parametrize("path", [3, b"bytes", None, 1.5, hr])
def test_other_paths_are_refused(path):
    for call in (hr.MAF(2).save, hr.load):
        with pytest.raises(TypeError, match=r"^path: expected a str or an os.PathLike of one, got [a-zN]"):
            call(path)


def test_missing_files_and_folders_are_named(tmp_path):
    flow = hr.MAF(2)
    with pytest.raises(FileNotFoundError, match=r"path: expected an existing file, got .*nothing"):
        hr.load(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=r"path: expected an existing file, got .*nothing"):
        hr.load(tmp_path / "nothing" / "deeper")
    with pytest.raises(FileNotFoundError, match=r"path: expected an existing folder, got .*nothing"):
        flow.save(tmp_path / "nothing" / "deeper")
    for call in (flow.save, hr.load):
        with pytest.raises(IsADirectoryError, match=r"path: expected a file, got the folder"):
            call(tmp_path)
    with pytest.raises(FileNotFoundError, match="existing file"):
        hr.load("a\0b")
    with pytest.raises(ValueError, match="null"):
        flow.save("a\0b")


def test_devices_and_pipes_are_neither_read_nor_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/null"):
        for call in (hr.MAF(2).save, hr.load):
            with pytest.raises(OSError, match="path: expected a regular file, got a device, socket or pipe"):
                call(path)


def test_a_link_stays_and_its_target_is_replaced(tmp_path):
    hr.MAF(2).save(tmp_path / "target")
    (tmp_path / "link").symlink_to("target")
    hr.MAF(3).save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert hr.load(tmp_path / "target").features == 3


def test_permissions_are_those_of_any_new_file_or_of_the_old_one(tmp_path):
    (tmp_path / "other").write_bytes(b"")
    hr.MAF(2).save(tmp_path / "file")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "other").stat().st_mode
    (tmp_path / "file").chmod(0o600)
    hr.MAF(2).save(tmp_path / "file")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


class _Failing:
    """A stream that fails in its first write."""

    def __init__(self, stream, error):
        self.stream, self.error = stream, error

    def writelines(self, parts):
        self.stream.write(next(iter(parts))[:10])
        raise self.error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stream.close()

    def __getattr__(self, name):
        return getattr(self.stream, name)


@pytest.mark.parametrize("where", ["write", "fsync", "replace"])
@pytest.mark.parametrize("error", [OSError("no space left on device"), KeyboardInterrupt()])
def test_a_failed_save_leaves_the_old_file_whole(where, error, tmp_path, monkeypatch):
    path = tmp_path / "file"
    hr.MAF(2).save(path)
    before = path.read_bytes()

    def fail(*args, **keywords):
        raise error

    if where == "write":
        opened = os.fdopen
        monkeypatch.setattr(os, "fdopen", lambda file, mode: _Failing(opened(file, mode), error))
    else:
        monkeypatch.setattr(os, where, fail)
    with pytest.raises(type(error)):
        hr.MAF(3).save(path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_process_killed_while_it_saves_leaves_the_old_file_whole(tmp_path):
    hr.MAF(2).save(tmp_path / "file")
    before = (tmp_path / "file").read_bytes()
    script = "import os, sys, headrace as hr; os.fsync = lambda file: os._exit(9); hr.MAF(3).save(sys.argv[1])"
    assert subprocess.run([sys.executable, "-c", script, tmp_path / "file"], check=False).returncode == 9
    assert (tmp_path / "file").read_bytes() == before


def test_readers_see_the_old_or_the_new_file_whole(tmp_path):
    flows = [cases.randomise(hr.MAF(2, transforms=1, hidden=(4,)), 0.2, i) for i in range(2)]
    flows[0].save(tmp_path / "file")
    done = threading.Event()

    def write():
        for i in range(30):
            flows[i % 2].save(tmp_path / "file")
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        got = hr.load(tmp_path / "file").parameters
        assert any((got == flow.parameters).all() for flow in flows)
    writer.join()
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_full_disk_leaves_the_old_file_whole(tmp_path):
    """A limit of the size of files simulates a full disk."""
    hr.MAF(2).save(tmp_path / "file")
    before = (tmp_path / "file").read_bytes()
    script = """
import resource, signal, sys, headrace as hr
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
hr.MAF(3).save(sys.argv[1])
"""
    run = subprocess.run([sys.executable, "-c", script, tmp_path / "file"], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "OSError" in run.stderr.splitlines()[-1]
    assert (tmp_path / "file").read_bytes() == before
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("name", ["n" * 255, "文" * 85, "🙂" * 60])
def test_names_may_be_as_long_as_the_system_allows(name, tmp_path):
    for features in (2, 3):
        hr.MAF(features).save(tmp_path / name)
        assert hr.load(tmp_path / name).features == features
    assert names(tmp_path) == [name]


DIES_WHILE_IT_SAVES = "import os, sys, headrace as hr; os.fsync = lambda file: os._exit(9); hr.MAF(3).save(sys.argv[1])"


def test_temporary_files_of_a_kill_are_removed_by_the_next_save_to_the_path(tmp_path):
    folder = tmp_path / "with [brackets]"
    folder.mkdir()
    for name in ("file", "other"):
        subprocess.run([sys.executable, "-c", DIES_WHILE_IT_SAVES, folder / name], check=False)
    assert len(names(folder)) == 2
    hr.MAF(2).save(folder / "file")
    assert len(names(folder)) == 2
    assert "file" in names(folder)
    hr.MAF(2).save(folder / "other")
    assert names(folder) == ["file", "other"]


def test_temporary_files_of_a_living_process_are_left_alone(tmp_path):
    """Two saves to one path at once do not disturb each other, and the file of the save that ends last stays."""
    script = """
import os, sys, headrace as hr
sync = os.fsync
def wait(file):
    print("writing", flush=True)
    sys.stdin.readline()
    sync(file)
os.fsync = wait
hr.MAF(3).save(sys.argv[1])
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path / "file"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "writing\n"
    hr.MAF(2).save(tmp_path / "file")
    assert len(names(tmp_path)) == 2
    process.communicate("go on\n", timeout=60)
    assert process.returncode == 0
    assert names(tmp_path) == ["file"]
    assert hr.load(tmp_path / "file").features == 3


def test_a_new_file_has_the_permissions_of_the_old_one_from_the_start(tmp_path, monkeypatch):
    """The temporary file never has wider permissions than the file that it replaces."""
    hr.MAF(2).save(tmp_path / "file")
    (tmp_path / "file").chmod(0o600)
    seen, sync = [], os.fsync

    def look(file):
        seen.append(os.fstat(file).st_mode & 0o777)
        sync(file)

    monkeypatch.setattr(os, "fsync", look)
    hr.MAF(3).save(tmp_path / "file")
    assert seen == [0o600]


@pytest.mark.parametrize(
    ("name", "error", "pattern"),
    [
        ("n" * 256, OSError, "path: expected a file that can be written, got .*nnn: File name too long"),
        ("loop", OSError, "path: expected a file that can be written, got .*loop: Too many levels of symbolic links"),
        ("link to nowhere", FileNotFoundError, "path: expected an existing folder, got .*nowhere"),
        ("file/", IsADirectoryError, "path: expected a file, got the folder .*file/"),
        ("new/", IsADirectoryError, "path: expected a file, got the folder .*new/"),
        ("file/below", FileNotFoundError, "path: expected an existing folder, got .*file"),
        ("a\ud800b", ValueError, r"path: expected a path, got '.*\\ud800"),
    ],
)
def test_paths_that_cannot_be_files_are_named_and_left_alone(name, error, pattern, tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "link to nowhere").symlink_to("nowhere/file")
    hr.MAF(2).save(tmp_path / "file")
    before = names(tmp_path)
    with pytest.raises(error, match=f"^{pattern}"):
        hr.MAF(3).save(f"{tmp_path}/{name}")
    assert names(tmp_path) == before
    assert (tmp_path / "loop").is_symlink()
    assert hr.load(tmp_path / "file").features == 2


def test_a_pipe_by_its_name_in_proc_is_refused():
    """If stdout is a pipe, the link /dev/stdout leads to a path in /proc whose target is no path to a file."""
    ends = os.pipe()
    try:
        with pytest.raises(OSError, match=r"^path: expected a regular file, got a device, socket or pipe, /proc"):
            hr.MAF(2).save(f"/proc/self/fd/{ends[1]}")
    finally:
        for end in ends:
            os.close(end)
