"""Circular imports between the files of `curator` and of `tui`, including imports for type checking."""

import grimp
import pytest


@pytest.mark.parametrize("package", ["tui", "curator"])
def test_imports_of_package_have_no_circle(package: str) -> None:
    graph = grimp.build_graph(
        "tui", "curator", include_external_packages=False, exclude_type_checking_imports=False, cache_dir=None
    )
    imports = {
        module: graph.find_modules_directly_imported_by(module)
        for module in graph.modules
        if module.partition(".")[0] == package
    }
    assert circles(imports) == []


def test_circles_imports_in_one_direction_is_empty() -> None:
    assert circles({"app": {"screen"}, "screen": {"state"}, "state": set()}) == []


def test_circles_imports_of_each_other_names_the_files() -> None:
    assert circles({"app": {"screen"}, "screen": {"widget"}, "widget": {"app"}, "state": set()}) == [
        ["app", "screen", "widget"]
    ]


def circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """Find circular imports.

    Args:
        imports: The files that each file imports.

    Returns:
        One sorted list of files for each circle.
    """
    reachable = {module: _reachable(module, imports) for module in imports}
    found = {
        tuple(sorted(other for other in reached if module in reachable.get(other, ())))
        for module, reached in reachable.items()
        if module in reached
    }
    return [list(circle) for circle in sorted(found)]


def _reachable(start: str, imports: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for module in imports.get(waiting.pop(), set()) - seen:
            seen.add(module)
            waiting.append(module)
    return seen
