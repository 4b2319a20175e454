"""The JSON schemas of a table of routes: msgspec's, and what is refused besides."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import msgspec
from attrs import frozen

from ._route import Route

__all__ = ["Schemas"]

_REF = "#/components/schemas/{name}"


@frozen
class Schemas:
    """The schemas of all types that the routes speak of.

    Args:
        components: by name, those that others point at.
    """

    components: dict[str, Any]
    _found: Mapping[Any, dict[str, Any]]

    @classmethod
    def of(cls, routes: Sequence[Route]) -> Self:
        """Collect what the routes need."""
        types = list(dict.fromkeys(kind for route in routes for kind in _types(route)))
        schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
        found = cls(components, dict(zip(types, schemas, strict=True)))
        for route in routes:
            found._narrow(route)
        return found

    def of_type(self, kind: Any) -> dict[str, Any]:
        """The schema of one type: mostly a reference to a component."""
        return self._found[kind]

    def _narrow(self, route: Route) -> None:
        # What the server takes of a field that it does not serve is what changes nothing.
        for name, values in route.refused.items():
            component = self.components[self.of_type(route.body)["$ref"].rpartition("/")[2]]
            component["properties"][name] = {"enum": [None, *values], "default": None}


def _types(route: Route) -> Iterator[Any]:
    kinds = (route.body, route.failure, *route.events, *route.answers.values())
    yield from (kind for kind in kinds if kind is not None)
