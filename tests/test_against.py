"""Two versions measured in turns: which ones, in what order, and what is left behind when one fails."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from processes import children, gone, start, wait_for
from records import record

import tlbench
from tlbench.campaign import against
from tlbench.campaign.against import Version
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
    with pytest.raises(tlbench.errors.UserError, match=r"imported from '/elsewhere/__init__\.py'"):
        version.checked()


def test_a_python_without_tlbench_is_named(tmp_path):
    (tmp_path / "tlbench").mkdir()
    (tmp_path / "tlbench" / "__init__.py").write_text("raise ImportError('not whole')")
    with pytest.raises(tlbench.errors.UserError, match=r"cannot be imported .*not whole"):
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
