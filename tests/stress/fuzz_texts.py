"""Whole texts of each kind, which `fuzz.py` damages."""

import json
from typing import Any


def json_of(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode()


_CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
ROWS = [
    b'{"prompt": "a", "completion": "b"}\n{"instruction": "a", "input": "", "output": "b"}\n',
    json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}).encode()
    + b"\n",
    json.dumps(
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "a"}]},
                {"role": "assistant", "content": "", "tool_calls": [_CALL]},
                {"role": "tool", "content": "b", "name": "f"},
            ],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        }
    ).encode(),
    json_of([{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}]),
    json_of({"examples": [{"input": "a", "target_scores": {"b": 1, "c": 0}}]}),
    json_of({"data": [{"paragraphs": [{"context": "a", "qas": [{"question": "b", "answers": [{"text": "c"}]}]}]}]}),
    json_of({"question": "a", "choices": {"text": ["b", "c"], "label": ["A", "B"]}, "answerKey": "A"}),
    json_of(
        {"prompt": {"text": "a", "role": "prompter", "replies": [{"text": "b", "role": "assistant", "replies": []}]}}
    ),
    json_of({"columns": ["prompt", "completion"], "data": [["a", "b"]]}),
]
TABLES = [b'prompt,completion\na,b\n"c, d",e\n', b"sep=;\na;b\nc;d\n", b"a\tb\n1\t2\n", b'text\n"a ""b"""\n']
TRAINERS = [
    b"base_model: m\ndatasets:\n  - path: a.jsonl\n    type: chat_template\n    field_messages: messages\n",
    b"model_name_or_path: m\ndataset: a,b\ndataset_dir: .\ntemplate: llama3\ncutoff_len: 512\n",
    b"model_name_or_path: m\ndataset_name: a\ndatasets:\n  - path: a.jsonl\n    split: train\n",
    b"model:\n  model_name: m\ndata:\n  train:\n    datasets:\n      - dataset_name: text_sft\n"
    b"        dataset_path: a.jsonl\n",
    b"model: m\ndataset:\n  - a.jsonl#100\nmax_length: 512\n",
]
INFOS = [json_of({"a": {"file_name": "a.jsonl", "formatting": "sharegpt", "columns": {"messages": "conversations"}}})]
CONFIGS = [
    b'[model]\nname_or_path = "m"\n[data]\ntasks = "tasks/*"\ntarget = "t"\n[lora]\nr = 2\n',
    b'[[data.task]]\nname = "a"\npath = "a.jsonl"\ncolumns = { prompt = "a.b" }\ncsv = { delimiter = ";" }\n',
]
_PLACED = {
    "files": [{"path": "a.jsonl", "sha256": "0" * 64, "rows": 2}],
    "examples": 1,
    "tokens": 2,
    "left_out": {"validation": [1]},
}
MANIFESTS = [
    json_of(
        {
            "created": "2026-01-01T00:00:00Z",
            "curator_version": "0.1.0",
            "project": "p",
            "name": "n",
            "target": "t",
            "method": "forward",
            "model": {"name_or_path": "m", "revision": "", "sha256": "0" * 64},
            **{section: {} for section in ("lora", "train", "data", "gradients", "estimate")},
            "targets": [{"name": "t", "validation_examples": 1, **_PLACED}],
            "tasks": [
                {"name": name, "selected": True, "affinity": 0.1, "affinity_standard_error": None, **_PLACED, **source}
                for name, source in (
                    ("a", {}),
                    ("b", {"source": {"hub": "a/b", "split": "train"}}),
                    ("c", {"source": {"saved_dataset": True}}),
                )
            ],
            "estimated_loss": 1.0,
            "estimated_loss_low": 0.9,
            "estimated_loss_high": 1.1,
        }
    )
]
EVENTS = [
    b'{"event": "StageStarted", "stage": "train", "total": 3, "unit": "steps", "done": 0, "time": 1.0}\n'
    b'{"event": "Note", "message": "a", "level": "info", "time": 2.0}\n'
]
JOBS = [
    json_of(
        {
            "command": "curator train",
            "arguments": ["train"],
            "cwd": "/",
            "host": "h",
            "pid": 1,
            "started": "2026-01-01T00:00:00+00:00",
            "ended": None,
            "state": "running",
            "message": "",
        }
    )
]
READMES = [b"---\nconfigs:\n- config_name: a\n  data_files:\n  - split: train\n    path: a.jsonl\n---\n# Data\n"]
