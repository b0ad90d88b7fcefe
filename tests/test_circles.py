"""No file of `curator` or `tui` imports itself through other files, imports for type checking included."""

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


def test_circles_of_files_in_one_direction_are_empty() -> None:
    assert circles({"app": {"screen"}, "screen": {"state"}, "state": set()}) == []


def test_circles_of_files_that_need_each_other_name_them() -> None:
    assert circles({"app": {"screen"}, "screen": {"widget"}, "widget": {"app"}, "state": set()}) == [
        ["app", "screen", "widget"]
    ]


def circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """Return the files that import each other, one sorted list for each circle."""
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
