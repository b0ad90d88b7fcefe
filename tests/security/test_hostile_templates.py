"""Chat templates without end: the system ends them, and Ctrl-C ends the command."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import CHAT_TEMPLATE, MakeProject, make_tokenizer, pair_rows
from hostile import run_cli

from curator.core.errors import DataError
from curator.data import chat_process
from curator.data.chat import Chat
from curator.data.encoding import encode_tasks
from curator.data.rows import Row
from curator.data.tokens import Encoder

# The first number is constant, so Jinja computes it while it reads the template.
ENDLESS = [
    "{{ 10 ** (10**10) }}",
    "{% set n = messages | length %}{{ (n + 9) ** ((n + 9) ** (n + 9)) }}",
    "{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3,
    "{% for a in messages %}{% endfor %}" + "{% for i in range(99999) %}" * 5 + "x" + "{% endfor %}" * 5,
]
GROWING = [
    "{% set ns = namespace(t='ab') %}{% for i in range(90) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}{{ ns.t }}",
    "{{ 'a' * (messages | length * 10**11) }}",
    "{{ '%999999999d' % 1 }}{{ '%999999999d' % 1 }}",
]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Shorten the limit of time."""
    chat_process.stop()
    monkeypatch.setattr(chat_process, "SECONDS", 1.0)
    yield
    chat_process.stop()


@pytest.mark.parametrize("template", [*ENDLESS, *GROWING])
def test_encode_endless_chat_template_raises_data_error(quick: None, template: str) -> None:
    encoder = Encoder(make_tokenizer(chat_template=template), max_length=64, encoder_decoder=False)
    began = time.monotonic()
    with pytest.raises(DataError, match="the chat template rejects the turns"):
        encoder.encode({"instruction": "a", "response": "b"})
    assert time.monotonic() - began < 60


def test_encode_tasks_one_endless_chat_is_one_bad_row(quick: None) -> None:
    """The other chats of the batch are rendered by a new process."""
    template = "{% if 'endless' in messages[0].content %}{{ 10 ** (10 ** (messages | length + 8)) }}{% endif %}"
    encoder = Encoder(make_tokenizer(chat_template=template + CHAT_TEMPLATE), max_length=64, encoder_decoder=False)
    contents = [{"instruction": f"a {number}", "response": "b"} for number in range(40)]
    contents[7] = {"instruction": "endless", "response": "b"}
    rows = [Row(number=n, file="f", line=n + 1, content=content) for n, content in enumerate(contents)]
    (task,) = encode_tasks([(0, rows)], encoder)
    bad = [example.number for example in task.examples if example.left_out == "bad row"]
    assert [example.number for example in task.examples if "more than 1 seconds" in example.text] == [7]
    assert bad in ([7], [])
    assert "a 39" in task.examples[39].text


def test_encode_tasks_template_that_never_ends_is_given_up(quick: None) -> None:
    encoder = Encoder(make_tokenizer(chat_template=ENDLESS[1]), max_length=64, encoder_decoder=False)
    rows = [Row(number=n, file="f", line=n + 1, content={"instruction": "a", "response": "b"}) for n in range(50)]
    began = time.monotonic()
    (task,) = encode_tasks([(0, rows)], encoder)
    assert time.monotonic() - began < 60
    assert all("more than 1 seconds" in example.text for example in task.examples)


def test_chat_process_equals_rendering_in_this_process() -> None:
    tokenizer = make_tokenizer(bos=True, chat_template="{{ bos_token }}" + CHAT_TEMPLATE)
    turns = [{"role": "user", "content": "é \ud800 \x00"}, {"role": "assistant", "content": "x" * 100_000}]
    chats: list[Any] = [(turns, None), (turns * 3, None), ([{"role": "user", "content": "a"}], [])]
    expected = [(chat.text, chat.spans()) for chat in (Chat(tokenizer, *one) for one in chats)]
    assert chat_process.ChatRenderer(tokenizer).render(chats) == expected


def test_check_setting_of_an_endless_template_is_a_bad_row(quick: None, make_project: MakeProject) -> None:
    tasks = {"target": pair_rows("target", 6), "chat": [{"instruction": "a", "output": "b"}]}
    folder = make_project(tasks=tasks, data={"chat_template": ENDLESS[0]})
    done = run_cli("check", "-p", folder, "-q").check(3)
    assert "chat.jsonl:1: the chat template rejects the turns: it takes more than 1 seconds" in done.err


def test_check_interrupt_within_endless_arithmetic_ends_within_five_seconds(make_project: MakeProject) -> None:
    """The old code computed within the interpreter, which then runs no handler of a signal."""
    tasks = {"target": pair_rows("target", 6), "chat": [{"instruction": "a", "output": "b"}]}
    folder = make_project(tasks=tasks)
    path = folder / "model" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": ENDLESS[1]}))
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "curator", "check", "-p", folder, "-q"],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        child = _renderer_of(process)
        time.sleep(1.0)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, words = process.communicate(timeout=30)
        assert time.monotonic() - began < 5
    finally:
        process.kill()
    assert process.returncode == 130
    assert "interrupted" in words
    for _ in range(100):
        if not _is_running(child):
            return
        time.sleep(0.05)
    pytest.fail("the process that renders chats is still there")


def _renderer_of(process: "subprocess.Popen[str]") -> int:
    import psutil

    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        for child in psutil.Process(process.pid).children():
            if "curator.data.chat_worker" in child.cmdline() and child.cpu_times().user > 1.5:
                return child.pid
        time.sleep(0.1)
    raise AssertionError("no process renders chats")


def _is_running(pid: int) -> bool:
    import psutil

    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_chat_worker_ends_with_its_parent(tmp_path: Path) -> None:
    """A killed curator leaves no process behind, also within endless arithmetic."""
    program = (
        "from conftest import make_tokenizer\nfrom curator.data import chat_process\n"
        "chat_process.SECONDS = 2.0\nprint('at work', flush=True)\n"
        f"chat_process.ChatRenderer(make_tokenizer(chat_template={ENDLESS[1]!r}))"
        ".render([([{'role': 'user', 'content': 'a'}], None)])\n"
    )
    paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": paths}
    )
    child = _renderer_of(process)
    process.kill()
    process.communicate()
    for _ in range(200):
        if not _is_running(child):
            return
        time.sleep(0.1)
    pytest.fail("the process that renders chats is still there")


@pytest.mark.timeout(120)
def test_encode_regular_expression_without_end_raises_data_error() -> None:
    """The library stops the search, with an error that ended the old code with a traceback."""
    from tokenizers import Regex, pre_tokenizers

    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(a+)+$"), "isolated")
    encoder = Encoder(tokenizer, max_length=64, encoder_decoder=False)
    with pytest.raises(DataError, match=r"the tokenizer cannot split a text: .*retry-limit"):
        encoder.encode({"text": "a" * 40 + "b"})
