"""Read YAML that others wrote: values only, of limited size."""

from typing import Any

_LARGEST = 1_000_000


def read_yaml(text: str, *, unique_keys: bool = True) -> Any:
    """Read one YAML document as plain values.

    Args:
        text: The document.
        unique_keys: Whether to refuse a key that occurs twice in one object. Otherwise the last value counts.

    Raises:
        ValueError: The document is not valid, a key occurs twice, or its aliases stand for more than a million values.
    """
    import yaml

    loader = None
    try:
        # The first characters are read at once.
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {}, unique_keys=unique_keys)
        return loader.construct_document(node)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    # PyYAML's own code fails on tags whose text does not fit: `!!timestamp x`, `!!int ''`, `!!bool x`, "\\UFFFFFFFF".
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, OverflowError) as error:
        known = isinstance(error, yaml.YAMLError | ValueError)
        reason = " ".join(str(error).split()) if known else "a value does not fit its tag"
        raise ValueError(reason) from error
    finally:
        if loader is not None:
            loader.dispose()


def _count(node: Any, known: dict[int, int], *, unique_keys: bool) -> int:
    """Return how many values a node stands for. An alias repeats a node, so that a short text can stand for billions.

    Args:
        node: A node of PyYAML.
        known: Numbers of earlier nodes by identity. 0 for a node that contains this one.
        unique_keys: As for `read_yaml`.

    Raises:
        ValueError: The node contains itself, has a key twice, or stands for too many values.
    """
    number = known.get(id(node))
    if number == 0:
        raise ValueError("an alias refers to a value that contains the alias")
    if number is None:
        known[id(node)] = 0
        number = 1
        inner = node.value if isinstance(node.value, list) else []
        if unique_keys:
            _refuse_repeated_key(inner)
        for child in inner:
            parts = child if isinstance(child, tuple) else (child,)
            number += sum(_count(part, known, unique_keys=unique_keys) for part in parts)
            if number > _LARGEST:
                raise ValueError(f"aliases stand for more than {_LARGEST:,} values")
        known[id(node)] = number
    return number


def _refuse_repeated_key(inner: list[Any]) -> None:
    """Refuse an object with a key that occurs twice. PyYAML would keep the last value."""
    seen = set()
    for child in inner:
        if not isinstance(child, tuple) or not isinstance(child[0].value, str) or child[0].value == "<<":
            continue
        if child[0].value in seen:
            raise ValueError(f"the key {child[0].value!r:.80} occurs twice, in line {child[0].start_mark.line + 1:,}")
        seen.add(child[0].value)
