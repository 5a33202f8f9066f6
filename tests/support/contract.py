"""Checks what a command prints with `--json` against the schemas in the package."""

from __future__ import annotations

from typing import Any

from jsonschema import Draft202012Validator

from batcher.cli.commands.help import command_schema
from tests.support.processes import Ended


def closed(schema: Any) -> Any:
    """The schema, strict: a key that it does not name is an error."""
    if isinstance(schema, dict):
        found = {name: closed(value) for name, value in schema.items()}
        if "properties" in found and "type" in found:
            found["additionalProperties"] = False
        return found
    return [closed(one) for one in schema] if isinstance(schema, list) else schema


def checked(ended: Ended, name: str) -> dict[str, Any]:
    """What was printed, after checking it against the command's schema and against the exit code."""
    found: dict[str, Any] = ended.report
    errors = Draft202012Validator(closed(command_schema(name))).iter_errors(found)
    assert [str(error) for error in errors] == []
    assert (found["command"], found["exit_code"]) == (name, ended.exit_code)
    assert next(iter(found)) == "schema"
    return found
