"""Build manifests for tests, and read the files of exports."""

import json
from pathlib import Path
from typing import Any

from curator.core.files import sha256_of
from curator.select.manifest import Manifest


def manifest_of(folder: Path, *names: str, **changes: Any) -> Manifest:
    """Build a manifest of the target `names[0]` and of selected tasks. Their files are in `folder`."""

    def files(name: str) -> list[dict[str, Any]]:
        path = folder / f"{name}.jsonl"
        return [{"path": path.name, "sha256": sha256_of(path), "rows": len(path.read_bytes().splitlines())}]

    def common(name: str) -> dict[str, Any]:
        found = files(name)
        return {"examples": found[0]["rows"], "tokens": 2, "files": found}

    values: dict[str, Any] = {
        "created": "2026-11-23T12:00:00Z",
        "curator_version": "0.1.0",
        "project": "p",
        "name": "n",
        "target": names[0],
        "method": "forward",
        "model": {"name_or_path": "m", "revision": "", "sha256": "x"},
        "lora": {},
        "train": {},
        "data": {},
        "gradients": {},
        "estimate": {},
        "targets": [{"name": names[0], "validation_examples": 0, **common(names[0])}],
        "tasks": [
            {"name": n, "selected": True, "affinity": 0.1, "affinity_standard_error": None, **common(n)}
            for n in names[1:]
        ],
        "estimated_loss": 1.0,
        "estimated_loss_low": 0.9,
        "estimated_loss_high": 1.1,
    }
    return Manifest.model_validate_json(json.dumps(values | changes))


def rows_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
