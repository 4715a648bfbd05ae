"""Work that a copy of the process does meanwhile: its result is that of the work done here, whatever becomes of it."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from processes import gone

from tlbench.machine import beside as module
from tlbench.machine.beside import beside

COPIES = hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) > 1
copying = pytest.mark.skipif(not COPIES, reason="takes Linux and two processors")


@pytest.fixture(autouse=True)
def no_other_thread(monkeypatch):
    monkeypatch.setattr(threading, "active_count", lambda: 1)  # pytest-xdist has one
    monkeypatch.delitem(sys.modules, "torch", raising=False)


def number():
    return str(os.getpid()).encode()


def children():
    with open(f"/proc/{os.getpid()}/task/{os.getpid()}/children") as file:
        return file.read().split()


@copying
def test_it_is_another_process():
    with beside(number) as wait:
        assert wait() != number()
    assert not children()


@pytest.mark.parametrize("why", ["not worth it", "threads", "torch", "no room"])
def test_else_it_is_made_here(why, monkeypatch):
    if why == "threads":
        monkeypatch.setattr(threading, "active_count", lambda: 2)
    if why == "torch":
        monkeypatch.setitem(sys.modules, "torch", None)
    if why == "no room":
        monkeypatch.setattr(os, "fork", lambda: (_ for _ in ()).throw(BlockingIOError(11, "no room")))
    with beside(number, worth_it=why != "not worth it") as wait:
        assert wait() == number()


@copying
def test_where_nobody_waits_for_children(monkeypatch):
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with beside(number) as wait:
            assert wait() != number()
    finally:
        signal.signal(signal.SIGCHLD, before)


ENDS = """
import os, signal, sys, time
from tlbench.machine.beside import beside
with beside(lambda: time.sleep(60)) as wait:
    with open(f"/proc/{os.getpid()}/task/{os.getpid()}/children") as file:
        print(file.read(), flush=True)
    wait()
"""


@copying
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["KILL", "INT"])
def test_it_ends_with_its_process(number):
    process = subprocess.Popen([sys.executable, "-c", ENDS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               start_new_session=True)  # fmt: skip
    copy = int(process.stdout.readline())
    os.kill(copy, signal.SIGINT)  # from the keyboard it reaches both; the parent says so, and ends it
    assert process.poll() is None
    process.send_signal(number)
    process.wait(10)
    assert gone([copy], 10)
    process.communicate()


@copying
def test_more_than_a_pipe_holds():
    with beside(lambda: bytes(10**7)) as wait:
        time.sleep(0.1)
        assert wait() == bytes(10**7)


@copying
@pytest.mark.parametrize("end", ["is killed", "raises", "is killed while it tells"])
def test_it_is_made_here_where_the_copy_comes_to_nothing(end):
    here = os.getpid()

    def make():
        if os.getpid() == here:
            return b"made"
        if end == "is killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if end == "raises":
            raise MemoryError
        # More than a pipe holds, so that it is still telling then.
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return bytes(10**7)

    with beside(make) as wait:
        time.sleep(0.5 if "while" in end else 0)
        assert wait() == b"made"
    assert not children()


@copying
def test_an_error_is_the_one_that_it_has_here():
    def make():
        raise ValueError("no such thing")

    with pytest.raises(ValueError, match="no such thing"), beside(make) as wait:
        wait()
    assert not children()


@copying
def test_nothing_goes_on_where_nobody_waits():
    with pytest.raises(KeyboardInterrupt), beside(lambda: time.sleep(600)):
        raise KeyboardInterrupt
    assert not children()


def test_it_needs_what_only_some_systems_have(monkeypatch):
    monkeypatch.setattr(module.sys, "platform", "darwin")
    with beside(number) as wait:
        assert wait() == number()
