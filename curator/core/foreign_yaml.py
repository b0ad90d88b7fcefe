"""Read YAML that others wrote: values only, of limited size."""

from typing import Any

_LARGEST = 1_000_000


def read_yaml(text: str) -> Any:
    """Read one YAML document as plain values.

    Args:
        text: The document.

    Raises:
        ValueError: The document is not valid, or its aliases stand for more than a million values.
    """
    import yaml

    loader = None
    try:
        # The first characters are read at once.
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {})
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


def _count(node: Any, known: dict[int, int]) -> int:
    """Return how many values a node stands for. An alias repeats a node, so that a short text can stand for billions.

    Args:
        node: A node of PyYAML.
        known: Numbers of earlier nodes by identity. 0 for a node that contains this one.

    Raises:
        ValueError: The node contains itself, or stands for too many values.
    """
    number = known.get(id(node))
    if number == 0:
        raise ValueError("an alias refers to a value that contains the alias")
    if number is None:
        known[id(node)] = 0
        number = 1
        inner = node.value if isinstance(node.value, list) else []
        for child in inner:
            number += sum(_count(part, known) for part in (child if isinstance(child, tuple) else (child,)))
            if number > _LARGEST:
                raise ValueError(f"aliases stand for more than {_LARGEST:,} values")
        known[id(node)] = number
    return number
