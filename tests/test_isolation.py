"""Cells in processes of their own: whatever becomes of one is a record, and the others are measured."""

import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from bits import results
from processes import BOOT, children, gone, start, wait_for
from tiers import sweep

from tlbench.campaign import isolate as worker
from tlbench.campaign.answers import Answers, frame
from tlbench.campaign.isolate import Workers
from tlbench.campaign.plugins import load_plugins
from tlbench.campaign.stop import OWN_INTERRUPT, Stop
from tlbench.data.store import free_bytes
from tlbench.errors import UserError
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.measure.place import Place
from tlbench.records.machine import machine_key
from tlbench.records.run_folder import RECORDS, load

# --- the protocol, with a child that does what a test says -------------------------------------------------------


BY_BACKBONE = Settings(isolate="backbone")


@pytest.fixture
def ask(monkeypatch):
    """``ask("code")``: what becomes of a cell in whose place a child runs this code."""
    monkeypatch.setattr(worker, "_BOOT", BOOT)
    monkeypatch.setattr(worker, "POLL_SECONDS", 0.02)
    opened = []

    def run(code, settings=BY_BACKBONE, stop=None, most_seconds=None, **changes):
        if not opened:
            opened.append(Workers(settings, stop or Stop(), ["a plugin"]))
        place = Place(name="the cell", siblings=("full",), block=3, role="aa", most_seconds=most_seconds)
        return opened[0].run_cell(Cell(backbone=textwrap.dedent(code), **changes), settings, place=place)

    run.opened = opened
    yield run
    for workers in opened:
        workers.__exit__()


def pids(ask):
    return [one._process.pid for one in ask.opened[0]._alive.values()]


ENDS = {
    "abort": ("import os; os.abort()", "failed", "its process was ended by SIGABRT"),
    "segmentation fault": (
        "import ctypes; ctypes.string_at(0)", "failed", "its process was ended by SIGSEGV"
    ),
    "killed": ("import os; os.kill(os.getpid(), 9)", "failed", "its process was ended by SIGKILL"),
    "exit": ("import os; os._exit(3)", "failed", "its process ended with exit status 3"),
    "exit without a word": ("import os; os._exit(0)", "failed", "its process ended with exit status 0"),
    "an error": (
        "raise ValueError('of its own')", "failed",
        "its process ended with exit status 1; it last wrote: ValueError: of its own",
    ),
    "last words": (
        "import os; os.write(2, b'one\\ntwo\\x1b[31m\\tthree\\r\\n\\n'); os._exit(3)", "failed",
        "its process ended with exit status 3; it last wrote: two\N{REPLACEMENT CHARACTER}[31m three",
    ),
    "no memory": ("raise MemoryError", "oom", "its process ended with exit status 1; it last wrote: MemoryError"),
    "no memory in C++": (
        """
        import os
        os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\\n")
        os.abort()
        """, "oom",
        "its process was ended by SIGABRT; it last wrote: terminate called after throwing an instance of "
        "'std::bad_alloc'",
    ),
    "half an answer": (
        "import os; os.write(int(__import__('sys').argv[4]), b'{\"record\": \"half'); os._exit(1)", "failed",
        "its process ended with exit status 1",
    ),
    "the pipe closed": (
        "import os; os.close(pipe)", "failed",
        "its process ended with exit status 1; it last wrote: OSError: [Errno 9] Bad file descriptor",
    ),
    "another file in its place": (
        "import os; own = open(os.devnull, 'wb'); os.dup2(own.fileno(), pipe)", "failed",
        "its process ended with exit status 1; it last wrote: OSError: the pipe to the run was closed by the cell's "
        "code, and its number is another file's",
    ),
    "a broken answer": (
        "import os, time; os.write(pipe, f'{setup[\"word\"]} 5 '.encode() + b'x' * 300); time.sleep(60)",
        "failed", worker.DAMAGED,
    ),
    "bytes within an answer": (
        """
        import hashlib, json, os
        content = json.dumps({"number": 1, "began": {}}).encode()
        header = f"{setup['word']} {len(content)} {hashlib.sha256(content).hexdigest()} ".encode()
        os.write(pipe, header + content[:9] + b"stray" + content[9:])
        import time; time.sleep(60)
        """, "failed", worker.DAMAGED,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", sweep(ENDS, {"killed", "an error"}))
def test_however_a_process_ends_there_is_a_record_and_the_next_cell_runs(case, ask):
    code, status, reason = ENDS[case]
    record = ask(code)
    assert (record.status, record.reason) == (status, reason)
    assert (record.id, record.block, record.role) == ("the cell", 3, "aa")
    assert record.cell.backbone == textwrap.dedent(code)
    assert record.environment["stable"] == {"cpu_model": "a child's"}
    assert record.wall_seconds > 0
    assert record.rounds == ()
    assert pids(ask) == []
    assert ask("pass").status == "ok"


@pytest.mark.parametrize("size", [50, 100, 200])
def test_what_a_process_said_of_itself_stays_where_damage_comes_right_behind_it(size, ask, monkeypatch):
    """In one reading, but not in one piece: then its machine was not in the record."""

    def read_some(pipe):
        with contextlib.suppress(BlockingIOError):
            return os.read(pipe, size)

    def wait_and_read(self, seconds=None, real=worker.Worker._read):
        time.sleep(0.3)  # all that it writes is there by then
        return real(self, seconds)

    monkeypatch.setattr(worker, "_read_some", read_some)
    monkeypatch.setattr(worker.Worker, "_read", wait_and_read)
    record = ask(ENDS["a broken answer"][0])
    assert (record.status, record.reason) == ("failed", worker.DAMAGED)
    assert record.environment["stable"] == {"cpu_model": "a child's"}


@pytest.mark.exhaustive
def test_a_process_that_never_begins_is_a_failed_cell(ask, monkeypatch):
    monkeypatch.setattr(worker, "START_SECONDS", 0.5)
    record = ask("early: import time; time.sleep(1000)")
    assert record.status == "timeout"
    assert record.reason.startswith("its process did not start within 0.5 s")
    assert record.environment == {}


@pytest.mark.exhaustive
def test_a_cell_that_hangs_is_stopped_and_says_where(ask):
    code = """
    import faulthandler, os, signal, time
    faulthandler.register(signal.SIGUSR1)
    def asleep():
        time.sleep(1000)
    asleep()
    """
    begin = time.monotonic()
    record = ask(code, Settings(isolate="backbone", cell_timeout_seconds=1))
    assert record.status == "timeout"
    assert re.fullmatch(
        r'took longer than --cell-timeout 1 s; it last wrote: File "<string>", line 5 in asleep', record.reason
    )
    assert "most recent call first" in record.output
    assert 1 < time.monotonic() - begin < 8
    assert pids(ask) == []


@pytest.mark.exhaustive
def test_the_time_that_a_process_takes_to_start_is_not_the_cells(ask):
    code = "early: import time; time.sleep(1.5); reply(began={})"
    assert ask(code, Settings(isolate="backbone", cell_timeout_seconds=1)).status == "ok"


@pytest.mark.exhaustive
def test_a_process_that_ignores_everything_is_killed_with_all_that_it_started(ask, tmp_path):
    code = f"""
    import signal, subprocess, sys, time
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    open({str(tmp_path / "pid")!r}, "w").write(str(other.pid))
    while True:
        time.sleep(1)
    """
    assert ask(code, Settings(isolate="backbone", cell_timeout_seconds=2)).status == "timeout"
    assert gone([int((tmp_path / "pid").read_text())])


def test_what_a_process_has_started_and_left_behind_does_not_hold_the_run_up(ask):
    code = """
    import os, subprocess, sys
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    os._exit(3)
    """
    begin = time.monotonic()
    assert ask(code).status == "failed"
    assert time.monotonic() - begin < 10


def test_output_beyond_measure_neither_blocks_nor_fills_anything(ask):
    code = """
    import os, sys
    for _ in range(300):
        sys.stdout.write("x" * 100_000)
    print("done", flush=True)
    os._exit(1)
    """
    record = ask(code)
    assert record.reason.endswith("exit status 1; it last wrote: " + "x" * 300)
    assert record.output.endswith("xdone")
    assert len(record.output) == worker.TAIL_BYTES - 1


STRAY = {
    "a line": r"os.write(pipe, b'stray\n')",
    "no end": "os.write(pipe, b'stray')",
    "words between answers": r"os.write(pipe, b'{}\n[]\n12\nnull\n\n')",
    "an answer without the word": r"os.write(pipe, b'{\"record\": \"no\", \"number\": 1}\n')",
    "a mistake without the word": r"os.write(pipe, b'{\"user_error\": \"no\"}\n')",
    "another word": r"os.write(pipe, b'0' * 32 + b' 2 ' + b'0' * 64 + b' {}\n')",
    "any bytes": "os.write(pipe, bytes(range(256)) * 1000)",
    "a part of the word": "os.write(pipe, setup['word'].encode()[:20])",
    "another cell's answer": "reply(number=7, record='no')",
    "output": r"os.write(1, b'{\"record\": \"no\"}\n'); print('stray', flush=True)",
    "a copy that goes on": "os.fork()",
}


@pytest.mark.parametrize("case", sweep(STRAY, {"a line", "an answer without the word", "a copy that goes on"}))
def test_what_else_comes_out_of_a_process_is_no_answer(case, ask):
    code = f"import os; {STRAY[case]}"
    assert [ask(code).status, ask(code).status, ask(code + "  ").status] == ["ok"] * 3
    assert len(pids(ask)) == 2, "the first two were measured by one process"


@pytest.mark.exhaustive
def test_who_writes_without_end_is_stopped_in_time(ask):
    begin = time.monotonic()
    code = "import os\nwhile True:\n    os.write(1, b'x' * 65536)"
    record = ask(code, Settings(isolate="backbone", cell_timeout_seconds=1))
    assert record.status == "timeout"
    assert time.monotonic() - begin < 10


def test_answers_come_out_whole_however_they_arrive():
    answers = [{"number": n, "text": "x" * n} for n in (0, 1, 300)]
    sent = b"".join(b"stray" * n + frame("word", answer) for n, answer in enumerate(answers)) + b"wor"
    for size in (1, 7, 40, 10_000):
        reader, found, other = Answers("word"), [], b""
        for begin in range(0, len(sent), size):
            some, stray = reader.take(sent[begin : begin + size])
            found += some
            other += stray
        assert found == answers
        assert other.replace(b"\n", b"") == b"stray" * 3
    assert reader.take(b"x" * 10_000_000)[0] == []
    assert len(reader._bytes) < 10, "what is no answer is not kept"


def test_a_mistake_of_the_users_travels_to_the_parent(ask):
    with pytest.raises(UserError, match=r"^image 'a.jpg' cannot be read$"):
        ask("reply(user_error=\"image 'a.jpg' cannot be read\")")
    assert pids(ask) == []


def test_the_last_answer_of_a_process_counts_however_soon_it_ends(ask, monkeypatch):
    late = []

    def read(self, real=worker.Worker._read):
        if not late:
            late.append(True)
            assert gone([self._process.pid])
            return []
        return real(self)

    monkeypatch.setattr(worker.Worker, "_read", read)
    with pytest.raises(UserError, match="no such image"):
        ask("reply(user_error='no such image'); import os; os._exit(0)")
    assert late


def test_a_process_serves_the_cells_of_a_backbone(ask):
    code = "changes['total_parameters'] = cells"
    assert [ask(code).total_parameters for _ in range(3)] == [0, 1, 2]
    assert ask(code, freeze="full").total_parameters == 3
    assert ask(code + "; pass").total_parameters == 0


def test_a_process_that_was_killed_while_it_waited_is_replaced(ask):
    assert ask("pass").status == "ok"
    os.kill(pids(ask)[0], signal.SIGKILL)
    assert gone(pids(ask))
    assert ask("pass").status == "ok"


def test_a_machine_that_starts_no_process_is_one_clear_line(ask, monkeypatch):
    def no_process(*_, **__):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", no_process)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(UserError, match=r"cannot start a process for cells: Resource .*; use --isolate none"):
        ask("pass")
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_process_for_each_cell(ask):
    code = "changes['total_parameters'] = cells"
    assert [ask(code, Settings(isolate="cell")).total_parameters for _ in range(3)] == [0, 0, 0]
    assert pids(ask) == []


def test_only_a_few_are_alive_at_a_time(ask):
    for number in range(5):
        ask(f"pass # {number}")
    assert len(pids(ask)) == worker.ALIVE == 3
    own = pids(ask)
    assert ask("changes['total_parameters'] = cells # 4").total_parameters == 0  # another backbone: the oldest went
    assert own[1:] == pids(ask)[:2]
    assert gone(own[:1])


def test_on_a_gpu_one_is_alive_at_a_time(ask):
    for number in range(2):
        ask(f"pass # {number}", device="cuda")
    assert len(pids(ask)) == 1


def test_the_cpus_cells_and_cudas_are_in_other_processes(ask):
    """CUDA's libraries would count in the memory of a CPU cell, and an idle context of another backbone as foreign."""
    code = "changes['total_parameters'] = cells"
    assert [ask(code, device=d).total_parameters for d in ("cpu", "cuda", "cpu", "cuda")] == [0, 0, 1, 1]
    assert len(pids(ask)) == 2
    ask(f"{code} # another", device="cuda:1")
    assert [device for _, device in ask.opened[0]._alive] == ["cpu", "cuda:1"]


def test_a_process_from_which_cuda_takes_no_more_work_is_ended(ask):
    code = "changes['total_parameters'] = cells; broken = True"
    assert [ask(code, device="cuda").total_parameters for _ in range(2)] == [0, 0]
    assert pids(ask) == []


def test_what_runs_out_of_memory_beside_others_is_tried_in_a_process_of_its_own(ask):
    """Else the verdict would depend on which cells ran before."""
    code = "changes['status'] = 'oom' if cells else 'ok'"
    assert [ask(code).status for _ in range(3)] == ["ok", "ok", "ok"]
    assert ask("changes['status'] = 'oom'").status == "oom"


def test_the_second_try_has_what_is_left_of_the_time(ask):
    """A race would be late by a whole measurement."""
    code = """
    import time
    time.sleep(0.5)
    changes |= {"status": "oom" if cells else "ok", "reason": str(request["place"]["most_seconds"])}
    """
    assert ask(code, most_seconds=30).status == "ok"
    again = ask(code, most_seconds=30)
    assert again.status == "ok"
    assert 28 < float(again.reason) < 29.6


def test_a_child_is_told_what_it_needs(ask, monkeypatch):
    monkeypatch.setattr("tlbench.campaign.isolate.UNREACHABLE", {})  # an earlier test may have met such a host
    monkeypatch.setattr("tlbench.machine.layouts._remembered", {})
    code = """
    import json, sys
    changes["environment"] = {"setup": setup, "request": request, "path": sys.path}
    """
    told = ask(code, Settings(isolate="backbone", memory_limit_bytes=7)).environment
    assert len(told["setup"].pop("word")) == 32
    assert told["setup"] == {"plugins": ["a plugin"], "memory_limit": 7, "unreachable": {}, "images": [], "layouts": {}}
    assert told["path"] == sys.path
    assert told["request"]["place"]["siblings"] == ["full"]
    assert told["request"]["cell"]["backbone"] == textwrap.dedent(code)


def test_what_one_process_has_measured_of_layouts_the_next_one_is_told(ask, monkeypatch):
    """Where the cache folder cannot be written nothing else would tell it, and a row's seeds would have two layouts."""
    monkeypatch.setattr("tlbench.machine.layouts._remembered", {})
    ask("layouts = {'a step': [2.0, 1.0], 'no time': [0, 'x'], 'no pair': 3}")
    told = ask("changes['environment'] = {'setup': setup}").environment  # another backbone has another process
    assert told["setup"]["layouts"] == {"a step": [2.0, 1.0]}


def test_a_file_in_the_current_folder_takes_no_modules_place(ask, tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit('not the library')")
    monkeypatch.chdir(tmp_path)
    assert ask("pass").status == "ok"


@pytest.mark.parametrize("code", ["import time; time.sleep(1000)", "import signal, time; signal.pause()"])
def test_a_run_that_is_stopped_abandons_its_cell(code, ask):
    stop = Stop()
    code = f"import os; os.kill(os.getppid(), {int(signal.SIGINT)}); {code}"
    with stop:
        record = ask(code, stop=stop)
    assert record.status == "interrupted"


def test_a_cell_that_interrupts_itself_has_failed_and_does_not_end_the_run(ask):
    record = ask("raise KeyboardInterrupt")
    assert (record.status, record.reason) == ("failed", OWN_INTERRUPT)
    assert ask("pass").status == "ok"


@pytest.mark.exhaustive
def test_what_a_stopped_cell_fails_with_is_the_stop(ask):
    code = """
    import os, time
    os.kill(os.getppid(), 2)
    try:
        time.sleep(1000)
    except KeyboardInterrupt:
        changes["status"] = "failed"
    """
    stop = Stop()
    with stop:
        record = ask(code, stop=stop)
    assert (record.status, record.reason) == ("interrupted", "stopped by the user")
    assert stop.signal == signal.SIGINT


@pytest.mark.exhaustive
def test_a_cell_that_does_not_give_up_is_killed_when_the_run_is_stopped(ask, monkeypatch):
    monkeypatch.setattr(worker, "GRACE_SECONDS", 0.5)
    code = """
    import os, signal, time
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.kill(os.getppid(), signal.SIGTERM)
    time.sleep(1000)
    """
    stop = Stop()
    with stop:
        record = ask(code, stop=stop)
    assert (record.status, record.reason) == ("interrupted", "stopped by a signal (SIGTERM)")
    assert stop.signal == signal.SIGTERM


def test_an_out_of_memory_kill_by_the_kernel_is_told_from_another(ask, monkeypatch):
    counts = iter([5, 5, 6])
    monkeypatch.setattr(worker, "_out_of_memory_kills", lambda: next(counts))
    record = ask("import os; os.kill(os.getpid(), 9)")
    assert record.status == "oom"
    assert "the kernel killed its process" in record.reason


# --- plugins --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("none.py", None, "FileNotFoundError"),
        ("broken.py", "def", "SyntaxError"),
        ("fails.py", "1 / 0", "ZeroDivisionError"),
        ("exits.py", "raise SystemExit(0)", "SystemExit"),
        ("odd.py", "class Odd(BaseException): pass\nraise Odd", "Odd"),
        ("no_such_module", None, "ModuleNotFoundError"),
        ("", None, "ValueError"),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_named(name, text, word, tmp_path):
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    given = str(path) if name.endswith(".py") else name
    with pytest.raises(UserError) as caught:
        load_plugins([given])
    assert repr(given) in str(caught.value)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


# --- real cells -----------------------------------------------------------------------------------------------

PLUGIN = '''
"""Backbones that do not survive."""

import os
import time
from pathlib import Path

from torch import nn

from tlbench.backbones import CUSTOM, Custom
from tlbench.backbones.base import InputSpec, Parts


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 4)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(4, 10)

    def forward(self, images):
        return self.fc(self.pool(self.stem(images)))


def parts(m):
    return Parts(body=[[("stem", m.stem)]], neck=[("pool", m.pool)], head=[("fc", m.fc)], features=4)


def eats():
    kept = []
    while True:
        kept.append(bytearray(50_000_000))


def exits():
    raise SystemExit(0)


def turn():
    Path(__file__).with_name("its-turn").touch()


def sleeps():
    turn()
    time.sleep(1000)


def stays():
    turn()
    while True:
        try:
            time.sleep(1000)
        except KeyboardInterrupt:
            pass


BEFORE = {
    "good": lambda: None,
    "eats": eats,
    "aborts": os.abort,
    "exits": exits,
    "sleeps": sleeps,
    "stays": stays,
}
SPEC = InputSpec(size=32, resize=32, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bilinear")
for name, before in BEFORE.items():
    CUSTOM[name] = Custom(build=lambda before=before: before() or Net(), parts=parts, input=SPEC)
'''
TINY = [
    "--weights=random", "--image-size=32", "--epochs=1", "--batch-size=64", "--layout=contiguous", "--threads=1",
    "--twins=0",  # how many there are depends on how long the cells took
]  # fmt: skip


@pytest.fixture
def plugin(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    return f"--plugin={path}"


@pytest.fixture
def no_report(monkeypatch):
    monkeypatch.setattr("tlbench.report.write_report", lambda records, folder: folder / "report.html")


@pytest.mark.exhaustive
def test_three_that_do_not_survive_and_one_that_does(command, plugin, no_report, tmp_path):
    """The memory, the interpreter and the time of three cells run out; the others are measured."""
    before = children(os.getpid())  # of other tests
    status, out, err = command(
        "run", plugin, *TINY, "--backbone=eats,aborts,good,sleeps", "--out", tmp_path / "run",
        "--cell-timeout=15", "--memory-limit=3GB",
    )  # fmt: skip
    assert status == 1, err
    records = load(tmp_path / "run").records
    assert [(r.role, r.cell.backbone, r.status) for r in records] == [
        ("cell", "eats", "oom"),
        ("cell", "aborts", "failed"),
        ("cell", "good", "ok"),
        ("cell", "sleeps", "timeout"),
    ]
    eats, aborts, good, sleeps = records
    assert eats.reason.startswith("batch size 64, with ")
    assert eats.reason.endswith("MemoryError")
    assert aborts.reason.startswith("its process was ended by SIGABRT; it last wrote: Fatal Python error: Aborted")
    assert "mine.py" in aborts.output
    assert sleeps.reason.startswith("took longer than --cell-timeout 15 s; it last wrote: ")
    assert "mine.py" in sleeps.output
    assert good.output == ""
    assert 0 <= good.accuracy_test <= 1
    assert len({machine_key(r) for r in records}) == 1, "a cell that failed seems to be of another machine"
    for word in ("oom: eats", "failed: aborts", "timeout: sleeps"):
        assert word in out
    assert gone([child for child in children(os.getpid()) if child not in before])


@pytest.mark.exhaustive
def test_figures_are_the_same_in_one_process_and_in_many(command, photos, no_report, tmp_path):
    grid = [*TINY, f"--dataset=folder:{photos}", "--backbone=mobilenet_v3_small", "--freeze=linear_probe,full"]
    found = {}
    for isolate in worker.ISOLATION:
        assert command("run", *grid, f"--isolate={isolate}", "--out", tmp_path / isolate)[0] == 0
        records = load(tmp_path / isolate).records
        found[isolate] = [results(r) for r in records]
        assert {r.settings.isolate for r in records} == {isolate}
        assert {r.environment["settings"]["threads"] for r in records} == {1}
        assert {r.environment["settings"]["allocator"] for r in records} <= {"keep", None}
    assert found["none"] == found["backbone"] == found["cell"]
    assert len(found["none"]) == 2


@pytest.mark.exhaustive
def test_a_limit_below_what_a_process_needs_at_all_is_the_users_mistake(command, plugin, tmp_path):
    status, _, err = command("run", plugin, *TINY, "--backbone=good", "--memory-limit=100MB", "--out", tmp_path / "run")
    assert status == 2
    assert re.fullmatch(
        r"tlbench: --memory-limit of 100 MB: a process takes [\d,]+ MB before it builds anything; give more",
        err.strip().splitlines()[-1],
    )
    assert (tmp_path / "run" / RECORDS).read_bytes() == b""


def test_what_is_kept_of_frozen_layers_and_images_minds_the_limit(monkeypatch):
    unlimited = free_bytes()
    taken = int(re.search(r"VmData:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024
    monkeypatch.setattr(resource, "getrlimit", lambda which: (taken + 200_000_000, -1))
    assert 0 < free_bytes() <= 200_000_000 < unlimited
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1, 1))
    assert free_bytes() == 0


@pytest.mark.exhaustive
def test_too_many_failures_stop_the_run(command, plugin, no_report, tmp_path):
    begin = ["run", plugin, *TINY, "--backbone=aborts", "--freeze=linear_probe,full,norm", "--max-failures=2"]
    status, out, _ = command(*begin, "--out", tmp_path / "run")
    assert status == 1
    assert "Stopped before its end: 2 cells have failed (--max-failures 2)" in out
    assert [r.status for r in load(tmp_path / "run").records] == ["failed", "failed"]


def led(pid: int) -> list[int]:
    """The children that lead a session of their own."""
    found = []
    for child in children(pid):
        with contextlib.suppress(ProcessLookupError):
            found += [child] * (os.getsid(child) == child)
    return found


@pytest.mark.exhaustive
def test_a_child_dies_with_its_parent_and_before_anything_else(plugin, tmp_path):
    log = tmp_path / "log"
    process = start("run", plugin, *TINY, "--backbone=sleeps", f"--out={tmp_path / 'run'}", cwd=tmp_path, log=log)
    try:
        # What the machine is asked by (a version, a name) are children too, and short ones: a worker leads a session.
        wait_for(lambda: led(process.pid), process)
        (child,) = led(process.pid)
        wait_for(lambda: Path(f"/proc/{child}/oom_score_adj").read_text() == "1000\n", process)
        assert child != os.getsid(process.pid)
        time.sleep(1)
    finally:
        process.kill()
        process.wait()
    assert gone([child])
    assert (tmp_path / "run" / RECORDS).read_bytes() == b""


def test_a_child_whose_parent_is_gone_already_does_not_start(tmp_path):
    line, requests, replies, files = (os.pipe() for _ in range(4))
    os.close(line[1])
    ends = (line[0], requests[0], replies[1], files[0])
    done = subprocess.run(
        [sys.executable, "-P", "-c", worker._BOOT, json.dumps(sys.path), *map(str, ends)],
        pass_fds=ends,
        timeout=60,
        check=False,
    )
    assert done.returncode in (1, -signal.SIGKILL)
    for pipe in (line[0], *requests, *replies, *files):
        os.close(pipe)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_is_left_to_the_children(photos, tmp_path):
    grid = [*TINY, f"--dataset=folder:{photos}", "--backbone=resnet18", "--freeze=linear_probe,full", "--device=cuda"]
    found = {}
    for isolate in worker.ISOLATION:
        code = (
            "import sys, torch\nfrom tlbench import cli\ntry:\n    cli.main()\nfinally:\n"
            "    with open(sys.argv[-1].partition('=')[2] + '.initialised', 'w') as file:\n"
            "        file.write(str(torch.cuda.is_initialized()))"
        )
        out = tmp_path / isolate
        command = [sys.executable, "-c", code, "run", *grid, f"--isolate={isolate}", f"--out={out}"]
        subprocess.run(command, check=True, cwd=tmp_path, capture_output=True)
        found[isolate] = [results(r) for r in load(out).records]
        assert (out.with_suffix(".initialised").read_text() == "True") == (isolate == "none")
    assert found["none"] == found["backbone"] == found["cell"]
