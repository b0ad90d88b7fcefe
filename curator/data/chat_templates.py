"""Find the chat template that a project sets, and give the template to a tokenizer.

A template is a program of its authors. curator never runs a template itself. transformers renders templates in a
sandbox without access to files, to modules or to private attributes.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curator.core.errors import ConfigError, DataError
from curator.core.figures import first_of
from curator.core.files import read_whole_text, refuse_endless
from curator.data.chat_process import ChatRenderer, TemplateInvalid

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Largest size of a template in bytes. Known templates are below 50 kB.
_LARGEST = 2**20
# Largest configuration of a tokenizer in bytes. Those with many added tokens have some MB.
_LARGEST_CONFIG = 2**26
_MARKS = ("{%", "{{")


def find_template(written: str, root: Path, model: Path) -> str:
    """Return the text of the chat template that `data.chat_template` names.

    Args:
        written: Value of the setting: a file, the name of one of the tokenizer's templates, or the template's text.
        root: Project folder. The path of a file is relative to it.
        model: Folder of the model's tokenizer.

    Returns:
        The text of the template. An empty text if `written` is empty.

    Raises:
        ConfigError: `written` is no file, no name and no text of a template.
        DataError: The file cannot be read, or is a JSON file without a template.
    """
    if not written or any(mark in written for mark in _MARKS):
        return written
    path = root / Path(written).expanduser()
    if path.is_file():
        return _read(path)
    named = named_templates(model)
    if written in named:
        return named[written]
    known = f"The tokenizer has these templates: {first_of(sorted(named), 10)}. " if named else ""
    raise ConfigError(
        f"data.chat_template: no such file, and no template of the tokenizer: {written!r:.200}",
        hint=f"{known}Correct the path, or write the template's text.",
    )


def named_templates(model: Path) -> dict[str, str]:
    """Return the text of every chat template of a tokenizer, by name. The usual template is named `default`.

    Args:
        model: Folder of the model's tokenizer.

    Raises:
        DataError: A file with a template cannot be read.
    """
    found: dict[str, str] = {}
    config = model / "tokenizer_config.json"
    try:
        text = read_whole_text(config, most=_LARGEST_CONFIG) if config.is_file() else "{}"
        there: Any = json.loads(text).get("chat_template")
    except (OSError, ValueError, AttributeError, RecursionError):
        # The tokenizer's own loader reports a damaged file.
        there = None
    if isinstance(there, str):
        found["default"] = there
    for entry in there if isinstance(there, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("template"), str):
            found[str(entry.get("name"))] = entry["template"]
    files = {"default": model / "chat_template.jinja"}
    files |= {path.stem: path for path in sorted(model.glob("additional_chat_templates/*.jinja"))}
    return found | {name: _read(path) for name, path in files.items() if path.is_file()}


def use_template(tokenizer: "PreTrainedTokenizerBase", template: str) -> None:
    """Make a tokenizer render chats with a template.

    Args:
        tokenizer: Tokenizer to change.
        template: Text of the template.

    Raises:
        ConfigError: The text is not a valid template.
    """
    tokenizer.chat_template = template
    # The template may reject this chat, and accept the chats of the data.
    (found,) = ChatRenderer(tokenizer).render([([{"role": "user", "content": "a"}], None)])
    if isinstance(found, TemplateInvalid):
        raise ConfigError(f"data.chat_template: not a valid template: {found.fault}", hint="Correct the template.")


def _read(path: Path) -> str:
    """Read the file of a template."""
    refuse_endless(path)
    try:
        if path.stat().st_size > _LARGEST:
            raise DataError(f"too large for a chat template: {path}", hint="Name the file of a Jinja template.")
        text = read_whole_text(path, most=_LARGEST)
        return text if path.suffix.lower() != ".json" else _of_json(text, path)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the chat template {path}: {error}", hint="Save the file as UTF-8.") from error


def _of_json(text: str, path: Path) -> str:
    """Return the template in the JSON file of a tokenizer or of a processor."""
    try:
        found = json.loads(text)["chat_template"]
    except (ValueError, LookupError, TypeError, RecursionError):
        found = None
    if not isinstance(found, str):
        raise DataError(f"no text under `chat_template` in {path}", hint="Name the file of a Jinja template.")
    return found
