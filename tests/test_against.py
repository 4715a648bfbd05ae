"""Two versions measured in turns: which ones, in what order, and what is left behind when one fails."""

import contextlib
import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from processes import children, gone, start, wait_for
from records import record

import tlbench
from tlbench.campaign import against
from tlbench.campaign.against import Version
from tlbench.errors import UserError
from tlbench.records.holder import Holder
from tlbench.records.run_folder import Store

OPTIONS = {"backbone": "resnet18", "epochs": "3"}


@pytest.fixture
def ran(monkeypatch, tmp_path):
    """Stands in for the processes: each version says what it is, and leaves a run."""
    calls = []

    def run(self, code, *arguments):
        if code == against.ASK:
            source = self.source or Path("/installed")
            return subprocess.CompletedProcess([], 0, f"{source}/tlbench/__init__.py\n0.1\n2.11\n", "")
        if code == against.HASH:
            return subprocess.CompletedProcess([], 0, f"{measure.code} of {self.name}\n", "")
        assert arguments[-1] == "--help"
        return subprocess.CompletedProcess([], 0, measure.help, "")

    def measure(self, arguments, log):
        calls.append((self.name, arguments))
        log.write_text(measure.says)
        if not measure.silent:
            folder = Path(arguments[arguments.index("--out") + 1])
            slower = measure.slower if "this" in self.name else 1.0
            Store(folder).append(record(seconds=(slower * (1 + len(calls) / 1000),) * 3))
        if measure.stops == len(calls):
            raise KeyboardInterrupt
        return measure.status

    measure.help, measure.status, measure.slower, measure.calls = "--twins N", 0, 1.0, calls
    measure.silent, measure.says, measure.stops, measure.code = False, "", None, "code"
    monkeypatch.setattr(Version, "run", run)
    monkeypatch.setattr(Version, "measure", measure)
    monkeypatch.chdir(tmp_path)
    environment = tmp_path / "venv" / "bin"
    environment.mkdir(parents=True)
    (environment / "python").touch()
    return measure


def test_blocks_take_both_versions_in_turns(ran, command, tmp_path):
    status, out, err = command("compare", "--against", "venv", "--backbone=resnet18", "--blocks=4", "--out", "here")
    assert status == 0, err
    assert [name for name, _ in ran.calls] == ["venv", "this version", "this version", "venv"] * 2
    assert all("--backbone=resnet18" in arguments for _, arguments in ran.calls)
    assert not any("--blocks" in argument for _, arguments in ran.calls for argument in arguments)
    assert {path.name for path in (tmp_path / "here").iterdir()} >= {"base-1", "new-1", "base-4", "new-4"}
    assert "block 1 of 4: base" in err
    assert "left" in err
    assert "measured in turns" in out


@pytest.mark.parametrize(("slower", "status"), [(1.0, 0), (1.25, 1)])
def test_a_gate_on_versions(slower, status, ran, command):
    ran.slower = slower
    assert command("compare", "--against", "venv", "--fail-on", "epoch_seconds:10%")[0] == status
    assert len(ran.calls) == 6, "three blocks unless asked otherwise"


def test_twins_are_left_out_where_a_version_has_any(ran, command):
    command("compare", "--against", "venv", "--blocks=1")
    assert all("--twins" in arguments for _, arguments in ran.calls)
    ran.calls.clear()
    ran.help = "an older version"
    command("compare", "--against", "venv", "--blocks=1")
    assert not any("--twins" in arguments for _, arguments in ran.calls)


def test_a_version_that_fails_is_named_with_what_it_wrote(ran, command, tmp_path):
    ran.status, ran.says = 2, "all went wrong\n"
    status, _, err = command("compare", "--against", "venv", "--out", "here")
    assert status == 2
    assert "venv ended with status 2: all went wrong; all of it is in 'here/log.txt'" in err
    assert len(ran.calls) == 1


def test_a_version_that_crashes_is_noticed_at_once(ran, command):
    """Python's own exit status after an error is that of a run of which a cell failed."""
    ran.status, ran.silent, ran.says = 1, True, "Traceback\nValueError: planted\n"
    status, _, err = command("compare", "--against", "venv", "--out", "here")
    assert status == 2
    assert "ValueError: planted" in err
    assert len(ran.calls) == 1


def test_what_was_stopped_goes_on_with_whole_blocks(ran, command, tmp_path):
    ran.stops = 3
    status, _, err = command("compare", "--against", "venv", "--out", "here", "--blocks=2")
    assert status == 130
    assert "the same command with --out here" in err
    ran.stops = None
    assert command("compare", "--against", "venv", "--out", "here", "--blocks=2")[0] == 0
    assert [name for name, _ in ran.calls] == ["venv", "this version", "this version", "this version", "venv"]
    assert len(list((tmp_path / "here").glob("new-2-stopped-*"))) == 1
    status, _, err = command("compare", "--against", "venv", "--out", "here", "--epochs=9")
    assert status == 2
    assert "with other options" in err


def test_a_mistake_is_found_before_anything_is_made(ran, command, tmp_path):
    status, _, err = command("compare", "--against", "venv", "--backbone", "resnet81", "--out", "here")
    assert status == 2
    assert "did you mean 'resnet18'" in err
    assert not (tmp_path / "here").exists()


def test_one_block_in_turns_says_what_it_lacks(ran, command):
    status, out, _ = command("compare", "--against", "venv", "--blocks=1", "--fail-on", "epoch_seconds:10%")
    assert status == 2
    assert "one block in turns gives no interval" in " ".join(out.split())


def test_both_forms_at_once_are_refused(command):
    assert command("compare", "a", "b", "--json", "--markdown")[0] == 2


def test_runs_that_are_there_are_not_touched(ran, command, tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "mine").touch()
    status, _, err = command("compare", "--against", "venv", "--out", "here")
    assert status == 2
    assert "is not empty" in err
    assert ran.calls == []


def test_another_tlbench_than_was_meant_is_refused(tmp_path, monkeypatch):
    version = Version(name="x", python=Path(sys.executable), source=tmp_path)
    monkeypatch.setattr(
        Version, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, "/elsewhere/__init__.py\n0.1\n2\n", "")
    )
    with pytest.raises(UserError, match=r"imported from '/elsewhere/__init__\.py'"):
        version.checked()


def test_a_python_without_tlbench_is_named(tmp_path):
    (tmp_path / "tlbench").mkdir()
    (tmp_path / "tlbench" / "__init__.py").write_text("raise ImportError('not whole')")
    with pytest.raises(UserError, match=r"cannot be imported .*not whole"):
        Version(name="x", python=Path(sys.executable), source=tmp_path).checked()


@pytest.mark.exhaustive
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_no_process_and_no_checkout(number, tmp_path):
    """Really: a version that sleeps in its first cell."""
    environment = tmp_path / "venv" / "bin"
    environment.mkdir(parents=True)
    script = environment / "python"
    asked = "/x/tlbench/__init__.py\n0\n2"
    script.write_text(f"#!/bin/sh\ncase \"$*\" in *print*) echo '{asked}' ;; *--help*) ;; *) exec sleep 60 ;; esac\n")
    script.chmod(0o755)
    log = tmp_path / "log"
    process = start("compare", "--against", environment.parent, "--out=here", "--seeds=0", cwd=tmp_path, log=log)
    wait_for(lambda: "block 1 of 3" in log.read_text() and children(process.pid), process)
    own = children(process.pid)
    process.send_signal(number)
    assert process.wait(timeout=90) == 128 + number
    assert gone(own)
    assert "Finished runs are kept in here" in log.read_text()


def test_a_signal_that_comes_while_a_version_starts_ends_it_too(monkeypatch, tmp_path):
    started = []

    def begin(*_, real=subprocess.Popen, **__):
        started.append(real(["sleep", "60"], start_new_session=True))
        signal.raise_signal(signal.SIGINT)
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", begin)
    with pytest.raises(KeyboardInterrupt):
        Version(name="x", python=Path(sys.executable)).measure([], tmp_path / "log")
    assert gone([started[0].pid])


@pytest.mark.exhaustive
def test_a_revision_is_really_measured(command, tmp_path, monkeypatch):
    repository = Path(tlbench.__file__).parents[1]
    if subprocess.run(["git", "-C", repository, "rev-parse", "HEAD"], capture_output=True, check=False).returncode:
        pytest.skip("needs a git checkout")
    monkeypatch.chdir(tmp_path)
    listing = ["git", "-C", repository, "worktree", "list"]
    before = subprocess.run(listing, capture_output=True, check=True).stdout
    status, out, err = command(
        "compare", "--against", "HEAD", "--blocks=2", "--out=here", "--backbone=resnet18", "--weights=random",
        "--image-size=32", "--train-size=20", "--epochs=2", "--freeze=linear_probe", "--seeds=0", "--isolate=none",
    )  # fmt: skip
    assert status == 0, err
    assert "measured in turns" in out
    assert "seconds an epoch: 1 cell" in out
    assert subprocess.run(listing, capture_output=True, check=True).stdout == before


def test_what_repeats_is_given_as_often():
    """A list was written as Python shows it, which no version understood."""
    options = {"also-test": ["phone=folder:x", "scan=folder:y"], "seed": "0"}
    assert against._arguments(None, options, []) == [
        "--also-test=phone=folder:x", "--also-test=scan=folder:y", "--seed=0",
    ]  # fmt: skip


def test_what_was_stopped_does_not_go_on_with_other_code(ran, command, tmp_path):
    """The code was mended after a block, and both were one measurement, which a gate went by."""
    ran.stops = 3
    assert command("compare", "--against", "venv", "--blocks=2", "--out", "turns")[0] in (1, 2, 130)
    ran.stops, ran.code = None, "mended"
    status, _, err = command("compare", "--against", "venv", "--blocks=2", "--out", "turns")
    assert status == 2
    assert "blocks of other code of base and of new" in err


@pytest.mark.parametrize("left", [[], ["measuring.lock", ".against.json.0123abcd-0123456789abcdef.part"]])
def test_a_folder_that_a_process_has_left_which_was_killed_as_it_began_is_taken(left, ran, command, tmp_path):
    (tmp_path / "here").mkdir()
    for name in left:
        (tmp_path / "here" / name).touch()
    status, _, err = command("compare", "--against", "venv", "--out", "here")
    assert status == 0, err


@pytest.mark.parametrize("at", ["the folder", "the log", "a stopped block", "the mark"])
def test_a_folder_that_cannot_be_written_is_one_line(at, ran, command, tmp_path, monkeypatch):
    """It was a traceback and status 1, which is what a gate says of a version that is slower."""
    here = Path("/proc/nope/x") if at == "the folder" else tmp_path / "here"
    if at in ("the log", "a stopped block"):
        ran.stops = 1
        assert command("compare", "--against", "venv", "--out", here)[0] == 130
        ran.stops = None
    if at == "the log":
        monkeypatch.setattr(Version, "measure", MEASURE)
        (here / "log.txt").unlink()
        (here / "log.txt").mkdir()
    elif at == "a stopped block":
        monkeypatch.setattr(Path, "rename", _no_room)
    elif at == "the mark":
        monkeypatch.setattr(Path, "touch", _no_room)
    status, out, err = command("compare", "--against", "venv", "--out", here, "--fail-on", "epoch_seconds:10%")
    assert (status, out) == (2, "")
    (line,) = [line for line in err.splitlines() if line.startswith("tlbench: ")]
    assert line.startswith(f"tlbench: cannot write to results folder '{here}': ")
    assert "choose another with --out" in line


MEASURE = Version.measure


def _no_room(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_the_question_whole(ran, command, tmp_path):
    """It was written over in its place, and all blocks were refused once it was torn."""
    backbones = "resnet18,resnet34,resnet50,resnet101,resnet152"
    asked = ("compare", "--against", "venv", "--out", "here", "--blocks=2", "--backbone", backbones)
    ran.stops = 3
    assert command(*asked)[0] == 130
    before = (tmp_path / "here" / "against.json").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) - 100, hard))
    try:
        status, _, err = command(*asked)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert status == 2
    assert "cannot write to results folder 'here': File too large" in err
    assert (tmp_path / "here" / "against.json").read_bytes() == before
    ran.stops = None
    assert command(*asked)[0] == 0
    assert len(ran.calls) == 5, "two blocks were there"


def test_a_block_that_is_still_measured_is_not_taken_away(ran, command, tmp_path):
    """By a run whose own command is gone: what had started it was killed."""
    ran.stops = 1
    assert command("compare", "--against", "venv", "--out", "here")[0] == 130
    ran.stops, block = None, tmp_path / "here" / "base-1"
    holder = Holder(block)
    status, _, err = command("compare", "--against", "venv", "--out", "here")
    assert status == 2
    assert f"block 'here/base-1' is still being measured by process {os.getpid()} on host" in err
    assert block.exists()
    assert len(ran.calls) == 1
    holder.release()
    assert command("compare", "--against", "venv", "--out", "here")[0] == 0


SLEEPS = "import subprocess\ndef main(): subprocess.run(['sleep', '1000'])\n"


@pytest.fixture
def sleeper(tmp_path):
    """``compare --against`` a version that sleeps in its first cell, in a process of its own, and those below it."""
    environment, package = tmp_path / "venv" / "bin", tmp_path / "installed" / "tlbench"
    environment.mkdir(parents=True)
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "cli.py").write_text(SLEEPS)
    script = environment / "python"
    script.write_text(
        "#!/bin/sh\ncase \"$*\" in *print*) echo '/x/tlbench/__init__.py\n0\n2' ;; *--help*) ;; "
        f"*) PYTHONPATH='{package.parent}' exec '{sys.executable}' \"$@\" ;; esac\n"
    )
    script.chmod(0o755)
    log = tmp_path / "log"
    process = start("compare", "--against", environment.parent, "--out=here", "--seeds=0", cwd=tmp_path, log=log)
    below = []
    try:
        wait_for(lambda: [p for pid in children(process.pid) for p in children(pid)], process)
        below += children(process.pid)
        below += [one for pid in below for one in children(pid)]
        yield process, below
    finally:
        for pid in [process.pid, *below]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def test_what_is_measured_ends_with_a_killed_command(sleeper):
    """It went on, and the next command moved its folder away from under it."""
    process, below = sleeper
    process.kill()
    assert gone(below)


def test_a_closed_terminal_ends_neither_the_command_nor_what_is_measured(sleeper):
    """The command died of it, and left the process that it had started to go on alone."""
    process, below = sleeper
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    assert not gone(below[:1], seconds=0)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=90) == 128 + signal.SIGTERM
    assert gone(below[:1])


def test_a_closed_terminal_ends_nothing_that_a_version_is_asked(tmp_path):
    """The kernel tells it to the command's process group. A version that had no answer was measured with twins."""
    asked = Version(name="x", python=Path(sys.executable)).run("import os; print(os.getpgrp() == os.getpid())")
    assert asked.stdout == "True\n"


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository of its own in the place of tlbench's, with a commit; returns what git says of it."""
    if shutil.which("git") is None:
        pytest.skip("needs git")
    folder = tmp_path / "repository"

    def git(*arguments):
        told = ("-c", "user.name=x", "-c", "user.email=x@example.org", "-C", folder)
        return subprocess.run(["git", *told, *arguments], capture_output=True, text=True, check=True).stdout

    (folder / "tlbench").mkdir(parents=True)
    (folder / "tlbench" / "__init__.py").touch()
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "x")
    monkeypatch.setattr(tlbench, "__file__", str(folder / "tlbench" / "__init__.py"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return git


def test_a_signal_as_a_revision_is_checked_out_leaves_nothing_in_gits_list(repository, tmp_path, monkeypatch):
    def run(command, *_, real=subprocess.run, **options):
        done = real(command, **options)
        if "add" in command:
            signal.raise_signal(signal.SIGTERM)
        return done

    before = repository("worktree", "list")
    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(against.Stopped), against._signals(), against._version("HEAD"):
        raise AssertionError("it was stopped")
    assert repository("worktree", "list") == before
    assert not list(tmp_path.glob("tlbench-against-*"))


@pytest.mark.parametrize("there", [True, False])
def test_the_checkout_of_a_killed_command_holds_no_other_up(there, repository, tmp_path):
    """Its folder may be there, or gone with all that lay in the temporary folder."""
    killed = tmp_path / "tlbench-against-killed" / "checkout"
    repository("worktree", "add", "--detach", str(killed), "HEAD")
    if not there:
        shutil.rmtree(killed.parent)
    before = repository("worktree", "list")
    with against._version("HEAD") as version:
        assert (version.source / "tlbench" / "__init__.py").exists()
    assert repository("worktree", "list") == before


def test_a_checkout_that_is_killed_is_one_line(repository, monkeypatch):
    """Git had said nothing, and the last of its lines was asked for."""
    said = {"rev-parse": subprocess.CompletedProcess([], 0, "0123abcd\n", "")}
    killed = subprocess.CompletedProcess([], -9, "", "")
    monkeypatch.setattr(against, "_git", lambda _, command, *__: said.get(command, killed))
    with (
        pytest.raises(UserError, match=r"'HEAD' cannot be checked out: git ended with status -9"),
        against._version("HEAD"),
    ):
        pass


def test_a_temporary_folder_that_cannot_be_written_is_one_line(repository, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/proc/nope")
    with (
        pytest.raises(UserError, match="'HEAD' cannot be checked out: no temporary folder: No such file"),
        against._version("HEAD"),
    ):
        pass
