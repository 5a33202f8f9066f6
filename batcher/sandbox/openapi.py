"""The sandbox's OpenAPI 3.1 document, limited to the paths that it serves."""

from __future__ import annotations

from typing import Any, Final

from batcher.sandbox.audio import CONTENT_TYPES
from batcher.sandbox.requests import MAX_CHARS, MODELS, RANGES

_Json = dict[str, Any]
_STRING: Final[_Json] = {"type": "string"}
_NUMBER: Final[_Json] = {"type": "number"}
_INTEGER: Final[_Json] = {"type": "integer"}
_STRINGS: Final[_Json] = {"type": "array", "items": _STRING}
_TIME: Final[_Json] = {"type": ["string", "null"], "format": "date-time"}


def _object(required: dict[str, _Json], optional: dict[str, _Json] | None = None) -> _Json:
    return {"type": "object", "required": [*required], "properties": required | (optional or {})}


def _ref(name: str) -> _Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _answer(description: str, schema: str) -> _Json:
    return {"description": description, "content": {"application/json": {"schema": _ref(schema)}}}


def _operation(name: str, answers: _Json, errors: dict[int, str], **more: Any) -> _Json:
    failures = {str(status): _answer(description, "Error") for status, description in errors.items()}
    return {"operationId": name, "responses": answers | failures} | more


_NUMBERS: Final[dict[str, _Json]] = {
    name: {"type": ["number", "null"], "minimum": low, "maximum": high} for name, (low, high) in RANGES.items()
}
_VERSION_3: Final[_Json] = {"servers": [{"url": "/api/open/v3"}]}
_UNAUTHORISED: Final = {401: "The token is missing or wrong."}

_CHOICES: Final[dict[str, _Json]] = {
    "engineModelId": {"enum": [*MODELS, None]},
    "format": {"enum": [*CONTENT_TYPES, None], "default": "mp3"},
    "language": {"type": ["string", "null"]},
    "emotion": {"type": ["string", "null"]},
}

_SCHEMAS: Final[_Json] = {
    "Create": _object(
        {"text": _STRING | {"minLength": 1, "maxLength": MAX_CHARS}, "voiceId": _STRING}, _CHOICES | _NUMBERS
    ),
    "Task": _object(
        {
            "id": _STRING,
            "status": {"enum": ["queued", "processing", "completed", "failed"]},
            "voiceId": _STRING,
            "engineModelId": _STRING,
            "format": {"enum": [*CONTENT_TYPES]},
            "creditsUsed": _NUMBER,
            "createdAt": _TIME,
            "startedAt": _TIME,
            "completedAt": _TIME,
        },
        {
            "audioUrl": _STRING
            | {"format": "uri", "description": "Valid for a short time; read the task again for a new one."},
            "error": _object({"code": _STRING, "message": _STRING}),
        },
    ),
    "Envelope": _object(
        {
            "task": _ref("Task"),
            "record": _object({"taskId": _STRING, "characters": {"type": "integer"}, "createdAt": _TIME}),
            "requestId": _STRING,
        },
        {"quotaRemaining": _NUMBER, "creditsUsed": _NUMBER},
    ),
    "Voices": _object(
        {
            "total": _INTEGER,
            "page": _INTEGER,
            "pageSize": _INTEGER,
            "totalPages": _INTEGER,
            "items": {"type": "array", "items": _object({"id": _STRING, "name": _STRING, "provider": _STRING})},
        }
    ),
    "Voice": _object({"voiceId": _STRING, "name": _STRING, "modelIds": _STRINGS, "languages": _STRINGS}),
    "Capabilities": _object(
        {
            "models": {
                "type": "array",
                "items": _object(
                    {
                        "modelId": _STRING,
                        "displayName": _STRING,
                        "available": {"type": "boolean"},
                        "controls": {"type": "object"},
                    }
                ),
            },
            "recommendedModelId": _STRING,
        }
    ),
    "Profile": _object({"user_id": _STRING, "api_quota_remaining": _NUMBER, "tier": _STRING, "credits": _NUMBER}),
    "Error": _object({"code": _STRING, "message": _STRING, "requestId": _STRING}),
}

_PATHS: Final[_Json] = {
    "/speech/tts/jobs": {
        "post": _operation(
            "createSpeechJob",
            {"202": _answer("The task is created and charged.", "Envelope")},
            {
                400: "The text, voice, model, format or a parameter is invalid.",
                402: "Out of credits.",
                429: "Too many requests; Retry-After may hold the seconds to wait.",
            }
            | _UNAUTHORISED,
            requestBody={"required": True, "content": {"application/json": {"schema": _ref("Create")}}},
        )
    },
    "/speech/tts/jobs/{taskId}": {
        "get": _operation(
            "readSpeechJob",
            {"200": _answer("The task, with its status.", "Envelope")},
            {404: "The account has no task with this id."} | _UNAUTHORISED,
            parameters=[{"name": "taskId", "in": "path", "required": True, "schema": _STRING}],
        )
    },
    "/profile": {
        "get": _operation("readProfile", {"200": _answer("The account, with its credits.", "Profile")}, _UNAUTHORISED)
    },
    "/voices": {
        "get": _operation(
            "listVoices",
            {"200": _answer("A page of the voices.", "Voices")},
            {400: "A number is invalid."} | _UNAUTHORISED,
            parameters=[
                {"name": name, "in": "query", "schema": schema}
                for name, schema in (("search", _STRING), ("limit", _INTEGER), ("offset", _INTEGER))
            ],
        )
    },
    "/voices/{voiceId}": _VERSION_3
    | {
        "get": _operation(
            "readVoice",
            {"200": _answer("The voice.", "Voice")},
            {404: "There is no voice with this id."} | _UNAUTHORISED,
            parameters=[{"name": "voiceId", "in": "path", "required": True, "schema": _STRING}],
        )
    },
    "/speech/tts/capabilities": _VERSION_3
    | {"get": _operation("readCapabilities", {"200": _answer("The models.", "Capabilities")}, _UNAUTHORISED)},
}

DOCUMENT: Final[_Json] = {
    "openapi": "3.1.0",
    "info": {
        "title": "Sandbox of the speech API",
        "version": "1",
        "description": "Speech by eSpeak NG, free of charge.",
    },
    "servers": [{"url": "/api/open/v1"}],
    "security": [{"token": []}],
    "paths": _PATHS,
    "components": {"schemas": _SCHEMAS, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
}
