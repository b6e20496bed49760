"""Writing files of results."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import package_environment
from faiss_ext.cli.files import atomic_files as atomic_files_module
from faiss_ext.cli.files import result_files
from faiss_ext.cli.files.atomic_files import atomic_files
from faiss_ext.errors import UserError
from faiss_ext.cli.files.result_files import open_results, write_vecs


def results(n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(n * k, dtype=np.int64).reshape(n, k) - 1
    return labels.astype(np.float32) / 3, labels


def npz_labels(path: str) -> np.ndarray:
    with np.load(path) as arrays:
        return arrays["labels"]


def vecs(path: str, dtype: str, width: int) -> np.ndarray:
    """The rows of a file, whose heads are checked."""
    rows = np.fromfile(path, dtype).reshape(-1, width + 1)
    assert (rows[:, :1].view("<i4") == width).all()
    return rows[:, 1:]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(n=st.integers(0, 30), k=st.integers(1, 6), rows=st.integers(1, 31))
def test_npz_written_in_chunks_is_read_by_numpy(n, k, rows):
    distances, labels = results(n, k)
    with open_results("r.npz", n, k, 100) as out:
        for start in range(0, n, rows):
            part = slice(start, start + rows)
            out.write(distances[part], labels[part])
    with np.load("r.npz") as got:
        assert sorted(got) == ["distances", "labels"]
        assert got["distances"].dtype == np.float32
        assert got["labels"].dtype == np.int64
        np.testing.assert_array_equal(got["distances"], distances)
        np.testing.assert_array_equal(got["labels"], labels)
    with zipfile.ZipFile("r.npz") as archive:
        assert archive.testzip() is None
    assert os.listdir() == ["r.npz"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(n=st.integers(0, 30), k=st.integers(1, 6), rows=st.integers(1, 31))
def test_vecs_written_in_chunks(n, k, rows):
    distances, labels = results(n, k)
    with open_results("r.ivecs", n, k, 100) as out:
        for start in range(0, n, rows):
            part = slice(start, start + rows)
            out.write(distances[part], labels[part])
    np.testing.assert_array_equal(vecs("r.ivecs", "<i4", k), labels)
    np.testing.assert_array_equal(vecs("r.fvecs", "<f4", k), distances)
    assert sorted(os.listdir()) == ["r.fvecs", "r.ivecs"]


def test_equal_results_make_equal_files():
    contents = []
    for name in ("a.npz", "b.npz"):
        with open_results(name, 5, 2, 10) as out:
            out.write(*results(5, 2))
        contents.append(Path(name).read_bytes())
    assert contents[0] == contents[1]


@pytest.mark.parametrize("name", ["r.npz", "r.ivecs"])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_nothing(name, error):
    with pytest.raises(error):
        with open_results(name, 5, 2, 10) as out:
            out.write(*results(3, 2))
            assert os.listdir() != []
            raise error
    assert os.listdir() == []


def test_an_exception_leaves_the_older_result():
    with open_results("r.ivecs", 1, 2, 10) as out:
        out.write(*results(1, 2))
    before = [Path(name).read_bytes() for name in ("r.fvecs", "r.ivecs")]
    with pytest.raises(KeyboardInterrupt):
        with open_results("r.ivecs", 5, 2, 10) as out:
            out.write(*results(5, 2))
            raise KeyboardInterrupt
    after = [Path(name).read_bytes() for name in ("r.fvecs", "r.ivecs")]
    assert after == before
    assert sorted(os.listdir()) == ["r.fvecs", "r.ivecs"]


@pytest.mark.parametrize("name", ["r.npz", "r.ivecs"])
def test_an_older_result_is_replaced_at_the_end(name):
    for n in (9, 4):
        with open_results(name, n, 2, 10) as out:
            before = sorted(p for p in os.listdir() if p[0] == "r")
            out.write(*results(n, 2))
            assert sorted(p for p in os.listdir() if p[0] == "r") == before
    if name == "r.npz":
        assert npz_labels(name).shape == (4, 2)
    else:
        assert vecs(name, "<i4", 2).shape == (4, 2)


def test_a_link_is_followed():
    os.mkdir("there")
    os.symlink("there/real.npz", "r.npz")
    with open_results("r.npz", 1, 2, 10) as out:
        out.write(*results(1, 2))
    assert os.path.islink("r.npz") and os.listdir("there") == ["real.npz"]
    assert npz_labels("r.npz").shape == (1, 2)


def test_the_mode_of_the_file_follows_the_umask():
    former = os.umask(0o027)
    try:
        with open_results("r.npz", 0, 2, 10):
            pass
    finally:
        os.umask(former)
    assert os.stat("r.npz").st_mode & 0o777 == 0o640


@pytest.mark.parametrize("name", ["r.npz", "r.ivecs"])
@pytest.mark.parametrize("n", [4, 6])
def test_another_number_of_results_than_promised_is_an_error(name, n):
    with pytest.raises(ValueError, match="queries"):
        with open_results(name, 5, 2, 10) as out:
            out.write(*results(n, 2))
    assert os.listdir() == []


def test_ivecs_holds_labels_of_31_bits_and_no_more():
    with open_results("r.ivecs", 0, 2, 2**31 - 1):
        pass
    with pytest.raises(UserError, match="int32.* 2147483648 vectors.*npz"):
        with open_results("s.ivecs", 0, 2, 2**31):
            pass
    with open_results("s.npz", 0, 2, 2**31):
        pass


def refusal(path: str, n: int = 5) -> str:
    with pytest.raises(UserError) as caught:
        with open_results(path, n, 2, 10):
            raise AssertionError("the block was entered")
    return str(caught.value)


def test_an_unknown_suffix_is_refused():
    assert "'.csv', expected one of .npz, .ivecs" in refusal("r.csv")


def test_a_missing_folder_is_refused():
    assert "there is no folder" in refusal("no/r.npz")


def test_a_folder_of_that_name_is_refused():
    os.mkdir("r.ivecs")
    assert "r.ivecs is a folder" in refusal("r.ivecs")
    os.mkdir("s.fvecs")
    os.mknod("s.ivecs")
    assert "s.fvecs is a folder" in refusal("s.ivecs")


def test_a_device_or_a_stream_of_that_name_is_named():
    os.symlink("/dev/full", "r.npz")
    assert "the output r.npz is a device" in refusal("r.npz")
    os.mkfifo("s.npz")
    assert "s.npz is a pipe (FIFO)" in refusal("s.npz")
    for name in ("-", "/dev/stdout", "/dev/fd/1"):
        assert f"the output {name} is standard output" in refusal(name)


def is_left(name: str) -> bool:
    return name.startswith(".faiss_ext-") and name.endswith(".part")


KILLED = """
import os, signal, sys
from faiss_ext.cli.files.atomic_files import atomic_files
with atomic_files(*sys.argv[1:]) as files:
    for file in files:
        file.write(b"half")
    print("writing", flush=True)
    sys.stdin.read(1)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def writer(*names: str) -> subprocess.Popen:
    """A process that writes these files, and is killed when it is told to."""
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, *names], env=package_environment(),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )
    assert process.stdout.readline() == "writing\n"
    return process


def kill(process: subprocess.Popen) -> None:
    process.communicate("x")
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("name", ["r.npz", "r.ivecs", "a" * 246 + ".npz", "[x]*.npz"])
def test_what_a_killed_run_left_goes_with_the_next_of_that_name(name):
    kill(writer("other.npz"))
    (other,) = filter(is_left, os.listdir())
    names = [name] if name.endswith(".npz") else ["r.fvecs", name]
    kill(writer(*names))
    assert len([*filter(is_left, os.listdir())]) == 1 + len(names)
    with open_results(name, 1, 2, 10) as out:
        out.write(*results(1, 2))
    # Other names are others' business.
    assert sorted(os.listdir()) == sorted([*names, other])


def test_what_is_being_written_is_left_alone():
    process = writer("r.npz")
    with open_results("r.npz", 1, 2, 10) as out:
        out.write(*results(1, 2))
    assert len([*filter(is_left, os.listdir())]) == 1
    kill(process)
    with open_results("r.npz", 1, 2, 10) as out:
        out.write(*results(1, 2))
    assert os.listdir() == ["r.npz"]


def test_a_file_that_is_taken_for_left_before_it_is_locked_is_made_again(
    monkeypatch,
):
    lock, locked = atomic_files_module._lock, []

    def another_was_first(file):
        locked.append(file.name)
        if len(locked) == 1:
            atomic_files_module._remove_if_left(file.name)
        return lock(file)

    monkeypatch.setattr(atomic_files_module, "_lock", another_was_first)
    with atomic_files("one") as (file,):
        file.write(b"whole")
    assert Path("one").read_bytes() == b"whole" and os.listdir() == ["one"]


def test_what_was_left_is_locked_as_nfs_wants_it(monkeypatch):
    lock = atomic_files_module.fcntl.flock

    def for_writing(file, how):
        if not file.writable():
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        lock(file, how)

    monkeypatch.setattr(atomic_files_module.fcntl, "flock", for_writing)
    kill(writer("one"))
    with atomic_files("one") as (file,):
        file.write(b"whole")
    assert os.listdir() == ["one"]


def test_a_file_system_without_locks_is_taken(monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(atomic_files_module.fcntl, "flock", refuse)
    kill(writer("one"))
    with atomic_files("one") as (file,):
        file.write(b"whole")
    # Nobody can tell whether the other is still being written.
    assert Path("one").read_bytes() == b"whole" and len(os.listdir()) == 2


def test_distances_do_not_replace_a_file_of_something_else():
    Path("r.fvecs").write_bytes(b"vectors")
    assert "belongs to no older r.ivecs" in refusal("r.ivecs")
    assert Path("r.fvecs").read_bytes() == b"vectors"


def test_a_folder_that_takes_no_files_is_refused():
    # As root, permissions refuse nothing; this file system does.
    assert "cannot write /proc/r.npz: " in refusal("/proc/r.npz")


def test_too_little_space_is_told_before_the_search(monkeypatch):
    usage = types.SimpleNamespace(total=10**12, free=5 * 2 * 12 - 1)
    monkeypatch.setattr(result_files.shutil, "disk_usage", lambda _: usage)
    assert "takes 120 bytes, and" in refusal("r.npz")
    assert "takes 120 bytes, and" in refusal("r.ivecs")
    usage.free += 1
    with open_results("r.npz", 5, 2, 10) as out:
        out.write(*results(5, 2))


def test_a_file_system_that_does_not_tell_its_space_is_taken(monkeypatch):
    usage = types.SimpleNamespace(total=0, free=0)
    monkeypatch.setattr(result_files.shutil, "disk_usage", lambda _: usage)
    with open_results("r.npz", 5, 2, 10) as out:
        out.write(*results(5, 2))


@pytest.mark.parametrize("name", ["r.npz", "r.ivecs"])
@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_late_refusal_of_the_system_leaves_nothing(
    name, function, number, monkeypatch
):
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with pytest.raises(UserError, match="cannot write r"):
        with open_results(name, 5, 2, 10) as out:
            out.write(*results(5, 2))
            monkeypatch.setattr(os, function, refuse)
    assert os.listdir() == []


LIMITED = """
import resource, sys, numpy as np
from faiss_ext.errors import UserError
from faiss_ext.cli.files.result_files import open_results
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
try:
    with open_results(sys.argv[1], 5000, 2, 10) as out:
        for _ in range(10):
            out.write(np.zeros((500, 2), "f4"), np.zeros((500, 2), "i8"))
except UserError as error:
    sys.exit(str(error))
"""


@pytest.mark.parametrize("name", ["r.npz", "r.ivecs"])
def test_a_disk_that_takes_no_more_leaves_nothing_and_no_noise(name):
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", LIMITED, name],
        env=package_environment(),
        capture_output=True,
        text=True,
    )
    shown = "r.npz" if name == "r.npz" else r"r.fvecs"
    assert done.stderr == f"cannot write {shown}: File too large\n"
    assert done.returncode == 1 and os.listdir() == []


def test_files_of_a_group_appear_in_the_order_given(monkeypatch):
    seen = []
    replace = os.replace

    def watched(source: str, target: str) -> None:
        seen.append(os.path.basename(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", watched)
    with atomic_files("one", "two"):
        assert seen == []
    assert seen == ["one", "two"]


def test_an_end_between_two_renames_leaves_no_file_of_the_last_name(
    monkeypatch,
):
    Path("r.fvecs").write_bytes(b"old")
    Path("r.ivecs").write_bytes(b"old")
    replace = os.replace

    def interrupted(source: str, target: str) -> None:
        replace(source, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        with open_results("r.ivecs", 5, 2, 10) as out:
            out.write(*results(5, 2))
    assert os.listdir() == ["r.fvecs"]
    assert vecs("r.fvecs", "<f4", 2).shape == (5, 2)


def test_a_second_file_that_cannot_be_created_takes_the_first_along():
    with pytest.raises(UserError, match="no/two"):
        with atomic_files("one", "no/two"):
            pass
    assert os.listdir() == []


def test_whole_arrays_are_written_by_suffix():
    write_vecs("x.fvecs", np.array([[1.5, 2.5]]))
    write_vecs("x.ivecs", np.array([[3], [4]]))
    assert vecs("x.fvecs", "<f4", 2).tolist() == [[1.5, 2.5]]
    assert vecs("x.ivecs", "<i4", 1).tolist() == [[3], [4]]
    with pytest.raises(UserError, match="expected .fvecs or .ivecs"):
        write_vecs("x.bvecs", np.array([[1]]))
