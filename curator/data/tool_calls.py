"""Convert tools and tool calls of a row to the form that chat templates read."""

import json
from typing import Any

from curator.core.errors import DataError
from curator.data.json_files import without_repeated_keys
from curator.data.text_fields import check_text


def tools_of(raw: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """Return the tools of a chat as chat templates read them: `{"type": "function", "function": {…}}`."""
    field = "tools" if raw.get("tools") else "functions"
    tools: Any = raw.get(field) or []
    if isinstance(tools, str):
        tools = parsed(tools, f"{field!r}", where) if tools.strip() else []
    tools = tools if isinstance(tools, list) else [tools]
    return [_tool(parsed(tool, f"{field!r}", where) if isinstance(tool, str) else tool, where) for tool in tools]


def _tool(tool: Any, where: str) -> dict[str, Any]:
    inner = tool.get("function", tool) if isinstance(tool, dict) else None
    if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
        raise DataError(
            f"{where}: a tool without a `name`: {tool!r:.60}",
            hint='Write {"type": "function", "function": {"name": "…", "description": "…", "parameters": {…}}}.',
        )
    check_text(tool, "a tool", where)
    if "input_schema" in inner and "parameters" not in inner:
        # Anthropic's name. Chat templates know OpenAI's.
        inner = {"parameters" if name == "input_schema" else name: value for name, value in inner.items()}
        tool = tool | {"function": inner} if "function" in tool else inner
    return tool if "function" in tool else {"type": "function", "function": tool}


def tool_calls_of(turn: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """Return the tool calls of a turn, in its newer or older form.

    Raises:
        DataError: A call has no name, or its arguments are no JSON object.
    """
    calls = turn.get("tool_calls") or turn.get("function_call") or []
    if isinstance(calls, str):
        calls = parsed(calls, "'tool_calls'", where)
    return calls_of(calls, where) if calls else []


def calls_of(calls: Any, where: str) -> list[dict[str, Any]]:
    """Return one call or a list of calls as chat templates read them.

    Raises:
        DataError: A call has no name, or its arguments are no JSON object.
    """
    return [_call(call, where) for call in (calls if isinstance(calls, list) else [calls])]


def _call(call: Any, where: str) -> dict[str, Any]:
    """Convert a tool call to the form that chat templates read. OpenAI's arguments are text, a template's an object."""
    inner = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
        raise DataError(
            f"{where}: a tool call without a `name`: {call!r:.60}",
            hint='Write {"type": "function", "function": {"name": "…", "arguments": {…}}}.',
        )
    arguments = inner.get("arguments")
    if isinstance(arguments, str):
        arguments = parsed(arguments, f"the arguments of {inner['name']!r}", where) if arguments.strip() else {}
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        raise DataError(
            f"{where}: the arguments of {inner['name']!r:.60} must be an object, not {arguments!r:.60}",
            hint='Write {"city": "Paris"}, or the same as JSON text.',
        )
    made = {"type": "function", "function": {"name": inner["name"], "arguments": arguments}}
    if isinstance(call.get("id"), str):
        made["id"] = call["id"]
    check_text(made, "a tool call", where)
    return made


def parsed(text: str, what: str, where: str) -> Any:
    """Return the value of a JSON text.

    Args:
        text: The text.
        what: Name of the text, for error messages.
        where: Place of the row, for error messages.

    Raises:
        DataError: The text is not valid JSON.
    """
    try:
        return json.loads(text, object_pairs_hook=without_repeated_keys)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{where}: not valid JSON in {what:.60}: {text!r:.60}", hint="Fix or remove the row."
        ) from error
