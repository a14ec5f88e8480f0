"""The AsyncAPI document of `amqpworker schema` is valid by the schema that the makers of AsyncAPI publish."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft7Validator

from amqpworker import App
from amqpworker.cli.asyncapi_document import asyncapi_document
from amqpworker.cli.task_messages import messages_of
from amqpworker.routing.topology import Names
from tests.docs import ROOT
from tests.unit.cli.schemashop import app, nothing

OFFICIAL = ROOT / ".amqpworker/node/node_modules/@asyncapi/specs/schemas/3.0.0.json"


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = json.loads(OFFICIAL.read_text())
    assert schema["$id"].endswith("/3.0.0/asyncapi.json")
    return Draft7Validator(schema)


def document_of(described: App) -> Any:
    found = messages_of(described, "#/components/schemas/{model}")
    return json.loads(json.dumps(asyncapi_document("shop", found, Names().tasks)))


@pytest.mark.parametrize("described", [app, nothing], ids=["a shop", "no tasks"])
def test_the_document_is_valid(validator: Any, described: App) -> None:
    assert [error.message for error in validator.iter_errors(document_of(described))] == []


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.pop("info"),
        lambda document: document["operations"]["shop.place"].update(action="publish"),
        lambda document: document["operations"]["shop.place"]["reply"]["address"].update(location="reply_to"),
        lambda document: document["channels"]["orders"]["bindings"]["amqp"].update(exchange=5),
        lambda document: document["components"]["schemas"]["shop.mixed.arguments"].update(discriminator={}),
    ],
)
def test_a_mistake_in_it_is_found(validator: Any, change: Any) -> None:
    document = document_of(app)
    change(document)
    assert not validator.is_valid(document)
