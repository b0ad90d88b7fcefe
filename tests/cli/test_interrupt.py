"""A signal stops a command within five seconds, with the way to resume and exit code 130."""

import signal
import subprocess
import sys
import textwrap
import time

import pytest
from conftest import MakeProject

# A command line with one command, run like the real one.
COMMAND = """
import hashlib, os, signal, sys, threading, time
import curator.cli.main
from curator.cli import app, interrupt
def command():
    print("at work", flush=True)
{work}
app.app = command
curator.cli.main.main()
"""
PATIENT = "time.sleep(60)"
# Computes in C and checks no signals, like a long training step.
DEAF = "interrupt._PATIENCE = 0.5\nhashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"
OTHER_ERROR = """
try:
    time.sleep(60)
except KeyboardInterrupt:
    raise RuntimeError("a library raises another error")
"""
TIDIES = """
try:
    print("within", flush=True)
    time.sleep(60)
finally:
    print("tidying", flush=True)
    time.sleep(60)
"""


def start(work: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND.format(work=textwrap.indent(work, "    "))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Background jobs of a shell ignore SIGINT, and nohup ignores SIGHUP.
        preexec_fn=lambda: [signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGHUP)],
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "at work\n"
    return process


@pytest.mark.parametrize(
    ("work", "sign"),
    [(PATIENT, "SIGINT"), (PATIENT, "SIGTERM"), (PATIENT, "SIGHUP"), (DEAF, "SIGTERM"), (OTHER_ERROR, "SIGINT")],
    ids=["int", "term", "hup", "deaf", "other error"],
)
def test_interrupt_signal_stops_and_names_the_way_to_resume(work: str, sign: str) -> None:
    process = start(work)
    began = time.monotonic()
    process.send_signal(signal.Signals[sign])
    _, words = process.communicate(timeout=30)
    assert time.monotonic() - began < 5
    assert process.returncode == 130
    assert words == "interrupted: finished work is kept; run the same command again to resume\n"


def test_interrupt_second_signal_ends_without_cleanup() -> None:
    process = start(TIDIES)
    assert process.stdout is not None
    assert process.stdout.readline() == "within\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "tidying\n"
    # At once a second time, as from `timeout`, is the same request.
    process.send_signal(signal.SIGINT)
    time.sleep(0.6)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, words = process.communicate(timeout=3)
    assert process.returncode == 130
    assert "run the same command again" in words


def test_main_called_in_process_restores_signal_handlers() -> None:
    """A notebook or a test that ran a command is not ended four seconds after its next Ctrl-C."""
    script = COMMAND.format(work="    pass").replace("curator.cli.main.main()", "call()")
    caller = """
def call():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    for _ in range(2):
        try:
            curator.cli.main.main()
        except SystemExit as done:
            assert done.code == 0, done.code
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
    assert signal.set_wakeup_fd(-1) == -1
    for thread in threading.enumerate():
        if thread.name == "interrupt":
            thread.join(5)
            assert not thread.is_alive()
"""
    script = script.replace("call()", f"{caller}\ncall()")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_job_whose_library_fails_after_an_interrupt_is_recorded_as_interrupted(make_project: MakeProject) -> None:
    """An interrupted import of pandas raised an AttributeError, and the job counted as failed."""
    folder = make_project()
    script = f"""
import os, signal, time
from pathlib import Path
from curator.cli.interrupt import Interrupt
from curator.cli.options import Shared
from curator.workspace.job_log import read_jobs

try:
    with Interrupt(), Shared(project=Path({str(folder)!r}), quiet=True).open() as project:
        project.reporter.stage("train", 1, "steps")
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(2)
        except KeyboardInterrupt:
            pass
        raise AttributeError("partially initialized module")
except KeyboardInterrupt:
    print([(job.state, job.message) for job in read_jobs(Path({str(folder)!r}) / ".curator" / "runs")], flush=True)
    os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[('interrupted', '')]\n"
