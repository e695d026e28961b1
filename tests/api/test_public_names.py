"""What `import hybrid` offers is one list, and everything on it is really there and documented."""

from __future__ import annotations

import inspect
import types

import hybrid


def test_every_name_on_the_list_exists_and_says_what_it_is() -> None:
    for name in hybrid.__all__:
        thing = getattr(hybrid, name)
        assert inspect.getdoc(thing), f"hybrid.{name} has no docstring"


def test_nothing_public_is_left_off_the_list() -> None:
    public = {
        name
        for name, thing in vars(hybrid).items()
        if not name.startswith("_") and not isinstance(thing, types.ModuleType)
    }
    assert public == set(hybrid.__all__)


def test_the_list_is_sorted_so_that_two_changes_to_it_merge() -> None:
    # Constants, classes, functions, as the linter wants it.
    kind = {name: 0 if name.isupper() else 1 if name[0].isupper() else 2 for name in hybrid.__all__}
    assert sorted(hybrid.__all__, key=lambda name: (kind[name], name)) == hybrid.__all__
