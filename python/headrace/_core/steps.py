"""Descriptions of a program's steps, from which each compiled module makes its own objects."""

from __future__ import annotations

from typing import Any


class StepSpec:
    """A step of a program: the name of its class in a compiled module, and the arguments of that class by keyword.

    A field may be a description of an object for which each module has a separate class; the description's method
    `made_for` makes the object.
    """

    def __init__(self, kind: str, **fields: Any) -> None:
        """`kind`: the name of the step's class in the compiled modules."""
        self.kind = kind
        self.fields = fields

    def made_for(self, core: Any) -> Any:
        """The step as an object of a compiled module, which checks the names and types of the fields."""
        own = {
            name: value.made_for(core) if hasattr(value, "made_for") else value for name, value in self.fields.items()
        }
        return getattr(core, self.kind)(**own)
