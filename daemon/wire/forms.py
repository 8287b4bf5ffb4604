"""Forms that an answer can be asked to have: JSON, a schema, a regex, a grammar."""

import msgspec


class AnyJson(msgspec.Struct, frozen=True, tag="json_object", tag_field="type"):
    """The answer's text is one JSON object."""


class JsonSchema(msgspec.Struct, frozen=True, tag="json_schema", tag_field="type"):
    """The answer's text is JSON that a JSON Schema accepts; ``schema`` is its JSON text."""

    schema: bytes


class Regex(msgspec.Struct, frozen=True, tag="regex", tag_field="type"):
    """The whole of the answer's text matches a regular expression (Rust's syntax)."""

    regex: str


class Grammar(msgspec.Struct, frozen=True, tag="grammar", tag_field="type"):
    """The answer's text follows a grammar in llguidance's form of Lark, from its ``start``."""

    grammar: str


Constraint = AnyJson | JsonSchema | Regex | Grammar
