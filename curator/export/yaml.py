"""Write the configuration of a trainer as YAML."""

import re
import sys
from typing import Any

import yaml


class _Dumper(yaml.SafeDumper):
    """Write text such as `1e3` in quotes, and equal lists in full instead of as references.

    PyYAML reads `1e3` as text. OmegaConf, which oumi reads with, takes `1e3` for a number.
    """

    def ignore_aliases(self, data: Any) -> bool:
        """Write every value in full."""
        return True


_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+"), list("-+0123456789")
)


def to_yaml(values: dict[str, Any], comment: str = "") -> str:
    """Write a YAML document.

    Args:
        values: Nested dictionaries, lists and plain values, in the order of the document. None is written as `null`.
        comment: Lines that stand before the document.
    """
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    # Without a limit, no value is folded over several lines.
    return head + yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=sys.maxsize)
