"""The kernel's timer, parents and children, most of it in real processes."""

import ctypes
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from safety import KernelTimer, kernel, undertaker
from tests.safety.fakes import dies

in_a_process_of_its_own = pytest.mark.processes

ARMED = """
import re, signal, time
from safety import KernelTimer
timer = KernelTimer()
timer.arm(0.25)
print("spinning", flush=True)
"""


@in_a_process_of_its_own
@pytest.mark.parametrize(
    "spin",
    [
        "sum(range(10**12))",
        "re.match('(a+)+$', 'a' * 60 + 'b')",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: pass",
        "time.sleep(60)",
        "for n in set(range(1, 65)) - {9, 19, 32, 33}: signal.signal(n, signal.SIG_IGN)\ntime.sleep(60)",
        "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\ntime.sleep(60)",
        "import ctypes; ctypes.PyDLL(None).sleep(60)",
        "import os; os.kill(os.getpid(), signal.SIGSTOP)",
    ],
)
def test_a_process_that_never_comes_back_to_python_dies_at_its_deadline(spin):
    code, seconds = dies(ARMED + spin, within=10)
    assert code == -9
    assert 0.1 < seconds < 2


@in_a_process_of_its_own
def test_a_timer_that_is_armed_anew_counts_anew():
    _, seconds = dies(ARMED + "time.sleep(0.1); timer.arm(0.5); time.sleep(60)", within=10)
    assert 0.5 < seconds < 2.5


@in_a_process_of_its_own
def test_a_timer_that_is_disarmed_ends_nothing():
    code, seconds = dies(ARMED + "timer.disarm(); time.sleep(0.4)", within=10)
    assert code == 0
    assert seconds > 0.35


@in_a_process_of_its_own
def test_a_deadline_that_is_past_already_ends_the_process_at_once():
    code, seconds = dies(ARMED + "timer.arm(60); timer.arm(-3); time.sleep(60)", within=10)
    assert (code, seconds < 2) == (-9, True)


def seconds_left(timer):
    """Until a timer of this process ends it; 0 where it is cleared."""
    setting = kernel._Setting()
    assert timer._library.timer_gettime(timer._timer, ctypes.byref(setting)) == 0
    return setting.value.whole + setting.value.nano / 1e9


def test_a_timer_is_set_for_as_long_as_it_is_told_and_cleared():
    timer = KernelTimer()
    for seconds in (60.25, 100):
        timer.arm(seconds)
        assert seconds - 5 < seconds_left(timer) <= seconds
    timer.disarm()
    assert seconds_left(timer) == 0


@in_a_process_of_its_own
def test_a_thrown_switch_is_a_kill():
    code, _ = dies(ARMED + "timer.throw()", within=10)
    assert code == -9


def test_a_thrown_switch_kills_this_process_and_no_other(monkeypatch):
    killed = []
    monkeypatch.setattr(os, "kill", lambda *what: killed.append(what))
    KernelTimer().throw()
    assert killed == [(os.getpid(), signal.SIGKILL)]


@in_a_process_of_its_own
def test_a_child_that_was_forked_has_a_timer_of_its_own():
    program = """
import os, sys, time
from safety import KernelTimer
timer = KernelTimer()
timer.arm(60)
if os.fork() == 0:
    timer.arm(0.2)
    print("spinning", flush=True)
    time.sleep(60)
_, status = os.wait()
sys.exit(os.waitstatus_to_exitcode(status) + 100)
"""
    assert dies(program, within=10)[0] == 91


def test_a_kernel_that_gives_no_timer_lets_nothing_compute(monkeypatch):
    monkeypatch.setattr(kernel, "_CLOCK", 12345)
    with pytest.raises(OSError, match="the kernel gives no timer: Invalid argument"):
        KernelTimer().arm(1)


def test_where_there_is_no_such_timer_an_alarm_stands_in(monkeypatch):
    armed = []
    monkeypatch.setattr(signal, "setitimer", lambda *what: armed.append(what))
    monkeypatch.setattr(ctypes, "CDLL", no_library)
    timer = KernelTimer()
    timer.arm(60)
    timer.disarm()
    assert armed == [(signal.ITIMER_REAL, 60), (signal.ITIMER_REAL, 0)]


def no_library(name: str | None, **_options: object) -> object:
    if name is None:
        return object()
    raise OSError(name)


# --- parents


@in_a_process_of_its_own
def test_a_parent_that_runs_is_told_from_one_that_stands_still_or_is_gone(tmp_path):
    said = tmp_path / "said"
    parent = f"""
import os, time
from pathlib import Path
from safety import kernel
child = os.fork()
if child:
    print("spinning", flush=True)
    time.sleep(60)
runs = kernel.parent_runs()
orphan = False
while not orphan:
    orphan = os.getppid() != runs.args[0]
    Path({str(said)!r}).write_text(str(runs()))
    time.sleep(0.01)
"""
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    try:
        process.stdout.readline()
        becomes(said, "True")
        process.send_signal(signal.SIGSTOP)
        becomes(said, "False")
        process.send_signal(signal.SIGCONT)
        becomes(said, "True")
        process.kill()  # and nobody reaps it yet
        becomes(said, "False")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def becomes(path: Path, text: str) -> None:
    until = time.monotonic() + 10
    while not path.exists() or path.read_text() != text:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_process_stands_still_while_it_is_stopped_or_dead_and_not_reaped(monkeypatch):
    process = subprocess.Popen(["sleep", "1000"])
    monkeypatch.setattr(os, "getppid", lambda: process.pid)
    runs = kernel.parent_runs()
    try:
        for sent, answer in (
            (0, True),
            (signal.SIGSTOP, False),
            (signal.SIGCONT, True),
            (signal.SIGKILL, False),
        ):
            process.send_signal(sent)
            until = time.monotonic() + 10
            while runs() is not answer:
                assert time.monotonic() < until
                time.sleep(0.001)
    finally:
        process.kill()
        process.wait()


def test_a_parent_is_believed_to_run_where_the_system_does_not_tell(monkeypatch):
    runs = kernel.parent_runs()
    monkeypatch.setattr(Path, "exists", lambda _path: False)
    assert runs()
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert not runs()


# --- children

PARENT = """
import ctypes, os, subprocess, sys, time
from pathlib import Path
from multiprocessing import get_context
from safety import KernelTimer, kernel


kernel.bury_children()
sleeping = ["sleep", "1000"]
children = [subprocess.Popen(sleeping).pid, subprocess.Popen(sleeping, start_new_session=True).pid]
for method in ("fork", "forkserver"):
    process = get_context(method).Process(target=time.sleep, args=(1000,))
    process.start()
    children.append(process.pid)
Path(sys.argv[1]).write_text(" ".join(map(str, children)))
print("spinning", flush=True)
{end}
"""


@in_a_process_of_its_own
@pytest.mark.parametrize(
    ("end", "leads"),
    [
        ("os.kill(os.getpid(), 9)", True),
        ("KernelTimer().arm(0.1); time.sleep(60)", True),
        ("ctypes.PyDLL(None)._exit(0)", False),
    ],
)
def test_however_a_worker_ends_its_children_end_with_it(tmp_path, end, leads):
    pids = tmp_path / "pids"
    command = [sys.executable, "-c", PARENT.format(end=end), str(pids)]
    process = subprocess.Popen(command, start_new_session=leads, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "spinning\n"
    process.wait(10)
    process.stdout.close()
    ended(pids)


def ended(pids: Path) -> None:
    children = [int(pid) for pid in pids.read_text().split()]
    until = time.monotonic() + 5
    while any(runs(pid) for pid in children):
        assert time.monotonic() < until
        time.sleep(0.01)


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@in_a_process_of_its_own
def test_a_torch_data_loader_ends_with_its_worker(tmp_path):
    pids = tmp_path / "pids"
    program = f"""
import os, time
from pathlib import Path
from torch.utils.data import DataLoader
from safety import kernel


class Endless:
    def __len__(self):
        return 1000
    def __getitem__(self, index):
        if index > 2:
            time.sleep(1000)
        return index


kernel.bury_children()
loader = iter(DataLoader(Endless(), num_workers=2))
next(loader)
Path({str(pids)!r}).write_text(" ".join(str(worker.pid) for worker in loader._workers))
print("spinning", flush=True)
os.kill(os.getpid(), 9)
"""
    assert dies(program, within=20)[0] == -9
    ended(pids)


def test_an_undertaker_buries_a_group_and_whoever_carries_the_mark(monkeypatch):
    other = {**os.environ, undertaker.MARK: "one"}
    strangers = {**os.environ, undertaker.MARK: "another"}
    member = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    marked = subprocess.Popen(["sleep", "1000"], env=other)
    stranger = subprocess.Popen(["sleep", "1000"], env=strangers)
    try:
        monkeypatch.setattr(os, "getppid", iter([7, 7, 1]).__next__)
        undertaker.wait_for(7)
        reaped(member, marked)
        undertaker.bury(member.pid, "one")
        assert (member.wait(5), marked.wait(5), stranger.poll()) == (-9, -9, None)
        undertaker.bury(member.pid, "one")
    finally:
        for process in (member, marked, stranger):
            process.kill()
            process.wait()


def reaped(*processes):
    """Take note of each one's end at once: who is dead and not reaped would still be found."""
    for process in processes:
        threading.Thread(target=process.wait, daemon=True).start()


def test_an_undertaker_gives_up_on_whoever_is_dead_and_never_reaped(monkeypatch):
    monkeypatch.setattr(undertaker, "ROUNDS", 3)
    member = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    undertaker.bury(member.pid, "nobody's")
    assert member.returncode is None
    assert member.wait(5) == -9


def test_an_undertaker_is_run_as_a_file(monkeypatch):
    member = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    # not this process's parent: what it waits for has ended
    monkeypatch.setattr(sys, "argv", ["undertaker.py", str(member.pid), "nobody's"])
    reaped(member)
    runpy.run_path(undertaker.__file__, run_name="__main__")
    assert member.wait(5) == -9


@pytest.mark.parametrize("leads", [True, False])
def test_a_worker_leads_a_group_of_its_own_and_marks_what_it_starts(monkeypatch, leads):
    happened = []
    monkeypatch.setenv(undertaker.MARK, "")
    monkeypatch.setattr(os, "getpgrp", lambda: os.getpid() if leads else 1)
    monkeypatch.setattr(os, "setpgid", lambda *what: happened.append(what))
    monkeypatch.setattr(subprocess, "Popen", lambda command, **_options: happened.append(command))
    kernel.bury_children()
    *led, command = happened
    assert led == ([] if leads else [(0, 0)])
    assert command[-3:] == [undertaker.__file__, str(os.getpid()), os.environ[undertaker.MARK]]


@pytest.mark.parametrize("forbidden", [False, True])
def test_every_thread_of_this_process_is_given_the_usual_priority_or_left_as_it_is(monkeypatch, forbidden):
    given = []

    def set_priority(which, thread, priority):
        if forbidden:
            raise PermissionError
        given.append((which, str(thread), priority))

    monkeypatch.setattr(os, "setpriority", set_priority)
    kernel.be_served_as_others_are()
    threads = [] if forbidden else os.listdir("/proc/self/task")
    assert sorted(given) == sorted((os.PRIO_PROCESS, thread, 0) for thread in threads)


PRIORITIES = """
import os, threading, time
os.setpriority(os.PRIO_PROCESS, 0, 7)
threading.Thread(target=time.sleep, args=(1,), daemon=True).start()
from safety.kernel import be_served_as_others_are
{first}
be_served_as_others_are()
print(*(os.getpriority(os.PRIO_PROCESS, int(thread)) for thread in os.listdir("/proc/self/task")))
"""


@in_a_process_of_its_own
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize(("first", "then"), [("", 0), ("os.setuid(65534)", 7)])
def test_every_thread_takes_the_usual_priority_where_the_kernel_lets_it(first, then):
    command = [sys.executable, "-c", PRIORITIES.format(first=first)]
    found = {int(word) for word in subprocess.check_output(command, text=True).split()}
    assert found == {then}
