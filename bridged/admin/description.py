"""The admin API described as OpenAPI 3.1, from the classes that clients read it with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from bridged import __version__
from bridged.admin.models import (
    AddStationAnswer,
    ConfirmAnswer,
    FdbAnswer,
    HealthAnswer,
    KickAnswer,
    ReloadAnswer,
    RemoveStationAnswer,
    RevokeAnswer,
    StatusAnswer,
)
from bridged.catalogue import error_codes

ANSWERS: Final[Mapping[str, type[BaseModel]]] = {
    "/v1/status": StatusAnswer,
    "/v1/confirm": ConfirmAnswer,
    "/v1/reload": ReloadAnswer,
    "/v1/kick": KickAnswer,
    "/v1/revoke": RevokeAnswer,
    "/v1/fdb": FdbAnswer,
    "/v1/stations/add": AddStationAnswer,
    "/v1/stations/remove": RemoveStationAnswer,
    "/v1/health": HealthAnswer,
}


def _text(name: str, length: int, *, required: bool = False) -> dict[str, Any]:
    schema = {"type": "string", "maxLength": length}
    return {"name": name, "in": "query", "required": required, "schema": schema}


_PARAMETERS: Final[Mapping[str, list[dict[str, Any]]]] = {
    "/v1/kick": [_text("name", 64, required=True), _text("tunnel", 63)],
    "/v1/revoke": [_text("name", 64, required=True), _text("keep", 64), _text("state_directory", 4096)],
    "/v1/fdb": [_text("tunnel", 63, required=True)],
    "/v1/stations/add": [
        _text("tunnel", 63, required=True),
        _text("address", 17, required=True),
        _text("peer", 64),
    ],
    "/v1/stations/remove": [_text("tunnel", 63, required=True), _text("address", 17, required=True)],
}
_REFERENCE: Final = "#/components/schemas/{model}"

_CODE: Final[Mapping[str, Any]] = {
    "type": "string",
    "enum": [code.name for code in error_codes.ERROR_CODES],
    "description": "; ".join(f"{code.name}: {code.meaning}" for code in error_codes.ERROR_CODES),
}
_REFUSAL: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["detail"],
    "properties": {
        "detail": {
            "oneOf": [
                {"type": "string"},
                {
                    "type": "object",
                    "required": ["code", "text"],
                    "properties": {
                        "code": {"$ref": _REFERENCE.format(model="ErrorCode")},
                        "text": {"type": "string"},
                    },
                },
            ]
        }
    },
}


def describe(routes: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    """The description of these routes: path -> (method, what it does)."""
    models = [(model, "serialization") for model in ANSWERS.values()]
    _, schemas = models_json_schema(models, ref_template=_REFERENCE)  # type: ignore[arg-type]
    paths = {}
    for path, (method, text) in routes.items():
        if path not in ANSWERS:
            continue
        schema = {"$ref": _REFERENCE.format(model=ANSWERS[path].__name__)}
        answer = {"description": "done", "content": {"application/json": {"schema": schema}}}
        responses = {"200": answer, "default": _refused()}
        operation: dict[str, Any] = {"summary": text, "responses": responses}
        if path in _PARAMETERS:
            operation["parameters"] = _PARAMETERS[path]
        paths[path] = {method.lower(): operation}
    return {
        "openapi": "3.1.0",
        "info": {"title": "bridged", "version": __version__},
        "paths": paths,
        "components": {"schemas": {**schemas["$defs"], "ErrorCode": _CODE, "Refusal": _REFUSAL}},
    }


def _refused() -> dict[str, Any]:
    schema = {"$ref": _REFERENCE.format(model="Refusal")}
    return {
        "description": "refused; `detail` says why, with an error code where there is one",
        "content": {"application/json": {"schema": schema}},
    }
