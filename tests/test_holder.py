"""One run, one writer: who measures a run holds its folder, and whoever comes second is told who that is."""

import errno
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path
from threading import Timer

import pytest
from records import record

import tlbench
from tlbench.campaign import room
from tlbench.campaign.asked import Asked
from tlbench.campaign.campaign import begin
from tlbench.errors import UserError
from tlbench.grid.grid import Grid
from tlbench.grid.settings import Settings
from tlbench.machine import locks
from tlbench.records import holder
from tlbench.records.holder import LOCK, check_free
from tlbench.records.plan import Plan
from tlbench.records.run_folder import Store, load

GRID = Grid(axes={"dataset": ("synthetic",), "backbone": ("resnet18",), "weights": ("random",)})


def made(folder) -> Store:
    store = Store(folder)
    store.describe(Plan(grids=(GRID,), settings=Settings()))
    store.append(record())
    return store


@pytest.fixture
def elsewhere(tmp_path):
    """A process that holds the run of a folder."""
    store = made(tmp_path / "run")
    code = (
        "import sys, time; from tlbench.records.run_folder import Store\n"
        "store = Store(sys.argv[1]); store.hold(); print('held', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, store.folder], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield store.folder, process
    process.kill()
    process.communicate()


def refusal(call, *arguments, **words) -> str:
    with pytest.raises(UserError, match="is being measured by") as caught:
        call(*arguments, **words)
    return str(caught.value)


def test_the_second_is_told_who_holds_it_and_readers_are_not_held_up(elsewhere, command):
    folder, process = elsewhere
    text = refusal(Store(folder).hold)
    assert f"process {process.pid} on host {platform.node()!r}, since 20" in text
    assert text.isprintable()
    assert refusal(check_free, folder) == text
    for words in (("run", "--resume", folder), ("replay", folder)):
        status, out, err = command(*words)
        assert (status, out, err) == (2, "", f"tlbench: {text}\n")
    assert len(load(folder).records) == 1
    assert command("summary", folder)[0] == 0
    assert command("export", folder)[0] == 0
    assert command("run", "--resume", folder, "--dry-run")[0] == 0
    assert len(load(folder).records) == 1


def test_the_lock_lapses_with_its_holder(elsewhere):
    folder, process = elsewhere
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (folder / LOCK).exists(), "nobody was there to remove it"
    check_free(folder)
    store = Store(folder)
    assert store.hold() == ""
    assert refusal(Store(folder).hold).count(f"process {os.getpid()} ")
    store.release()
    store.release()
    assert not (folder / LOCK).exists()
    Store(folder).hold()


def test_pytest_is_told_as_well(elsewhere, tmp_path):
    folder, process = elsewhere
    (tmp_path / "bench_it.py").write_text("def train(tl_run):\n    tl_run()\n")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "--benchmark-only", "-o"),
            *("python_functions=train", "bench_it.py", "--tl-resume", folder),
        ],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(tlbench.__file__).parents[1])},
    )  # fmt: skip
    assert done.returncode == 2
    lines = [line for line in (done.stdout + done.stderr).splitlines() if "is being measured by" in line]
    assert len(lines) == 1
    assert f"process {process.pid} " in lines[0]


def test_a_run_is_free_again_whatever_ends_it(tmp_path, monkeypatch):
    folder = made(tmp_path / "run").folder
    asked = Asked(resume=str(folder))
    monkeypatch.setattr("tlbench.campaign.campaign.load", lambda folder: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        begin(asked)
    monkeypatch.undo()
    campaign = begin(asked)
    refusal(begin, asked)
    monkeypatch.setattr("tlbench.campaign.measuring.run_step", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        campaign.run()
    begin(asked).release()
    begin(Asked(grid=GRID, out=tmp_path / "new")).store.release()
    assert not list(tmp_path.rglob(LOCK))


def test_no_link_is_followed_and_what_a_killed_process_left_half_written_holds_nobody_up(tmp_path):
    store, other = made(tmp_path / "run"), tmp_path / "other"
    other.write_text("mine")
    (store.folder / LOCK).symlink_to(other)
    with pytest.raises(UserError, match="cannot write"):
        store.hold()
    assert other.read_text() == "mine"
    (store.folder / LOCK).unlink()
    for content in ("", "{", "[]", '{"pid": "x"}', "\0" * 9):
        (store.folder / LOCK).write_text(content)
        check_free(store.folder)
        store.hold()
        (store.folder / LOCK).write_text(content)
        assert "another process" in refusal(Store(store.folder).hold)
        store.release()


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS, errno.EINVAL])
def test_a_file_system_without_locks_takes_a_run_with_a_word(tmp_path, monkeypatch, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    store = made(tmp_path)
    assert "has no locks" in store.hold()
    assert "has no locks" in "; ".join(begin(Asked(resume=str(tmp_path))).notes)
    assert len(load(tmp_path).records) == 1


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EACCES])
def test_a_file_system_that_syncs_no_folders_takes_a_run_with_a_word(tmp_path, monkeypatch, number):
    whole = os.fsync

    def fsync(handle):
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(number, os.strerror(number))
        whole(handle)

    monkeypatch.setattr("os.fsync", fsync)
    assert "syncs no folders" in made(tmp_path).hold()
    assert len(load(tmp_path).records) == 1


def test_a_disk_that_fails_is_no_such_file_system(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(OSError, match="Input/output"):
        locks.sync_folder(tmp_path)
    with pytest.raises(UserError, match="Input/output"):
        Store(tmp_path)


def test_room_is_reserved_where_the_system_has_no_call_for_it(tmp_path, monkeypatch):
    monkeypatch.delattr("os.posix_fallocate", raising=False)
    with (tmp_path / "file").open("wb+") as file:
        locks.reserve(file, 2**20 + 5)
        assert os.fstat(file.fileno()).st_size == 2**20 + 5
        assert os.fstat(file.fileno()).st_blocks * 512 >= 2**20


def test_a_full_disk_locks_nobody_out_who_makes_room(tmp_path, monkeypatch):
    """The file that the first try had left open was locked, so that the second one met its own lock."""
    store = made(tmp_path / "run")
    real, tried = holder.json.dumps, []

    def full(told):
        if not tried:
            tried.append(1)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(told)

    monkeypatch.setattr(holder.json, "dumps", full)
    monkeypatch.setattr(room.trained, "give_way", lambda folder: 1)
    room.with_room(store, store.hold)
    assert tried
    refusal(Store(store.folder).hold)
    store.release()
    assert not (store.folder / LOCK).exists()


def test_a_look_at_a_run_refuses_nobody_who_begins_it(tmp_path):
    """`watch tlbench status` tried the lock by taking it, at the very moment that a run began."""
    store = made(tmp_path / "run")
    path = store.folder / LOCK
    path.touch()  # as a killed process leaves it
    looking = path.open("rb+")
    assert locks.try_lock(looking)
    Timer(0.05, looking.close).start()
    store.hold()
    store.release()
