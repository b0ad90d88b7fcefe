"""Makes the pages of `docs/reference/` from the code: commands, configuration, Python.

python docs/make_reference.py            # writes them
python docs/make_reference.py --check    # says which are not as the code is, and fails
"""

import ast
import inspect
import re
import sys
import textwrap
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main
from pydantic import BaseModel

import curator
from curator import results
from curator.cli.app import app
from curator.core import config
from curator.core.errors import ExitCode
from curator.project.project import Project

FOLDER = Path(__file__).parent / "reference"
_MADE = "<!-- Made by docs/make_reference.py: change the code, not this page. -->\n"


def commands_page() -> str:
    """Every command with its arguments and options, as its `--help` has them."""
    lines = [_MADE, "# Commands\n"]
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        context = command.make_context(name, [], resilient_parsing=True)
        usage = " ".join(["curator", name, *command.collect_usage_pieces(context)])
        records = [record for p in command.params if (record := p.get_help_record(context)) is not None]
        lines += [f"## curator {name}\n", f"{command.help}\n", f"    {usage}\n", "| | |", "|---|---|"]
        lines += [f"| `{_cell(shown)}` | {_cell(words)} |" for shown, words in records]
        example = (command.epilog or "").removeprefix("Example: ")
        lines += ["", *([f"    {example}\n"] if example else [])]
    codes = " · ".join(f"{code.value} {code.name.lower().replace('_', ' ')}" for code in ExitCode)
    lines += ["## Exit codes\n", f"{codes}\n"]
    return "\n".join(lines)


def configuration_page() -> str:
    """Every key of `curator.toml` with its type and default."""
    lines = [_MADE, "# curator.toml\n", "Paths are relative to the file. Keys without a default must be given.\n"]
    for section, field in config.Config.model_fields.items():
        model: Any = field.annotation
        lines += _section(f"[{section}]", model)
    lines += _section("[[data.task]]", config.TaskSource)
    return "\n".join(lines)


def _section(title: str, model: type[BaseModel]) -> list[str]:
    lines = [f"## {title}\n", "| key | type | default | |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        if name == "task":
            continue
        default = "" if field.is_required() else f"`{_toml(field.get_default(call_default_factory=True))}`"
        words = " ".join((field.description or "").split())
        lines.append(f"| `{name}` | {_cell(_type(field.annotation))} | {default} | {_cell(words)} |")
    return [*lines, ""]


def _type(annotation: Any) -> str:
    """A type in the words of TOML."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type(arguments[0])
    if origin is typing.Literal:
        return " or ".join(f"`{_toml(value)}`" for value in arguments)
    if origin is tuple:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return f"table of {_type(arguments[1])}"
    if origin in (typing.Union, type(int | str)):
        return " or ".join(_type(kind) for kind in arguments if kind is not type(None))
    return {str: "text", int: "integer", float: "number", bool: "true or false"}.get(annotation, str(annotation))


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return "" if value is None else str(value)


def python_page() -> str:
    """The verbs of a `Project`, and what they return."""
    lines = [_MADE, "# Python\n", '```python\nimport curator\n\nproject = curator.Project.open("sample_data")\n```\n']
    lines.append(f"{inspect.getdoc(Project)}\n")
    for name, method in vars(Project).items():
        inner = getattr(method, "__func__", method)
        if name.startswith("_") or not inspect.isfunction(inner) or not inspect.getdoc(inner):
            continue
        # Classes without the modules they come from.
        shown = re.sub(r"\b(?:\w+\.)+(?=[A-Z])", "", str(inspect.signature(inner)))
        signature = shown.replace("(self, ", "(").replace("(self)", "()")
        lines += [f"## Project.{name}\n", f"```python\n{name}{signature}\n```\n", _indented(inspect.getdoc(inner)), ""]
    lines.append("# What they return\n")
    modules = [
        results.data,
        results.stages,
        results.estimates,
        results.selection,
        results.verification,
        results.outputs,
    ]
    for name, fields in (found for module in modules for found in _fields(Path(module.__file__))):
        kind = getattr(results, name)
        lines += [f"## {name}\n", f"{_paragraph(inspect.getdoc(kind))}\n", "| field | type | |", "|---|---|---|"]
        lines += [f"| `{field}` | `{_cell(kind)}` | {_cell(words)} |" for field, kind, words in fields]
        lines.append("")
    return "\n".join(lines)


def _fields(path: Path) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """The fields of each public class of a module: name, type, and the text below it."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.ClassDef) or node.name.startswith("_"):
            continue
        found = []
        for field, after in zip(node.body, [*node.body[1:], None], strict=True):
            if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
                continue
            value = after.value if isinstance(after, ast.Expr) else None
            words = value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else ""
            found.append((field.target.id, ast.unparse(field.annotation), " ".join(words.split())))
        if found:
            yield node.name, found


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _paragraph(text: str | None) -> str:
    return " ".join((text or "").partition("\n\nAttributes:")[0].split())


def _indented(text: str | None) -> str:
    """A docstring whose sections stay as they are laid out."""
    head, _, rest = (text or "").partition("\n\n")
    return head + (f"\n\n{textwrap.indent(rest, '    ')}" if rest else "")


PAGES = {"commands.md": commands_page, "configuration.md": configuration_page, "python.md": python_page}


def main() -> None:
    """Write the pages, or check them."""
    stale = []
    for name, make in PAGES.items():
        path, text = FOLDER / name, make().rstrip() + "\n"
        if "--check" not in sys.argv:
            FOLDER.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
    if stale:
        raise SystemExit(f"not as the code is: {', '.join(stale)}; run python docs/make_reference.py")
    assert curator.__version__


if __name__ == "__main__":
    main()
