"""Serve a local hub with the part of the protocol that `datasets` and `hf://` use to read files."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

SHA = "0123456789abcdef0123456789abcdef01234567"
Files = dict[str, dict[str, bytes]]
"""Content of each file, by data set and path."""


@contextmanager
def local_hub(files: Files) -> Iterator[tuple[str, list[str]]]:
    """Serve data sets. Yield the address and the list of requested paths."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked.append(f"{self.command} {self.path}")
            path = unquote(urlsplit(self.path).path)
            for pattern, answer in _ANSWERS:
                found = re.fullmatch(pattern, path)
                if found and found["repo"] in files:
                    answer(self, files[found["repo"]], found)
                    return
            self.send(404, b'{"error": "no such thing"}', {"X-Error-Code": "RepoNotFound"})

        do_HEAD = do_GET
        do_POST = do_GET

        def body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in ({"Content-Type": "application/json", "X-Repo-Commit": SHA} | headers).items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _info(handler: Any, files: dict[str, bytes], found: re.Match[str]) -> None:
    described = {
        "id": found["repo"],
        "sha": SHA,
        "private": False,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "siblings": [{"rfilename": name} for name in files],
    }
    handler.send(200, json.dumps(described).encode(), {})


def _entry(name: str, content: bytes) -> dict[str, Any]:
    return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}


def _tree(handler: Any, files: dict[str, bytes], found: re.Match[str]) -> None:
    root = f"{found['folder']}/" if found["folder"] else ""
    inside = {name.removeprefix(root): content for name, content in files.items() if name.startswith(root)}
    folders = sorted({name.partition("/")[0] for name in inside if "/" in name})
    there = [{"type": "directory", "path": root + name, "oid": SHA} for name in folders]
    there += [_entry(root + name, content) for name, content in inside.items() if "/" not in name]
    if there:
        handler.send(200, json.dumps(there).encode(), {})
    else:
        handler.send(404, b'{"error": "no such folder"}', {"X-Error-Code": "EntryNotFound"})


def _paths(handler: Any, files: dict[str, bytes], found: re.Match[str]) -> None:
    body = handler.body().decode()
    wanted = json.loads(body)["paths"] if body.startswith("{") else re.findall(r"paths=([^&]+)", unquote(body))
    there = [_entry(name, files[name]) for name in wanted if name in files]
    handler.send(200, json.dumps(there).encode(), {})


def _file(handler: Any, files: dict[str, bytes], found: re.Match[str]) -> None:
    content = files.get(found["file"])
    if content is None:
        handler.send(404, b"", {"X-Error-Code": "EntryNotFound"})
        return
    headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "Accept-Ranges": "bytes"}
    span = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("Range") or "")
    if span is None:
        handler.send(200, content, headers)
        return
    start, end = int(span[1]), int(span[2] or len(content) - 1)
    part = content[start : end + 1]
    handler.send(206, part, headers | {"Content-Range": f"bytes {start}-{start + len(part) - 1}/{len(content)}"})


_REPO = r"(?P<repo>[^/]+/[^/]+)"
_ANSWERS = [
    (rf"/api/datasets/{_REPO}(/revision/[^/]+)?", _info),
    (rf"/api/datasets/{_REPO}/tree/[^/]+(/(?P<folder>.*))?", _tree),
    (rf"/api/datasets/{_REPO}/paths-info/[^/]+", _paths),
    (rf"/datasets/{_REPO}/resolve/[^/]+/(?P<file>.+)", _file),
]
