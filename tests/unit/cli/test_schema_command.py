"""`amqpworker schema`: what it prints is valid, fits what is really sent, and refuses what a worker refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from jsonschema import Draft7Validator, Draft202012Validator

from amqpworker.cli.asyncapi_document import asyncapi_document
from amqpworker.cli.json_schema_document import json_schema_document
from amqpworker.cli.task_messages import keys_of, messages_of
from amqpworker.model.message import Publication
from amqpworker.model.outcome import Failure
from amqpworker.model.reply import encode_done, encode_failed
from amqpworker.routing.envelope import publication_of_call, publication_of_send
from amqpworker.routing.topology import Names
from tests.cli import Ended, run_here
from tests.unit.cli.schemashop import app, calls

NAMES = Names("amqpworker")
NOW = 1_790_000_000.0


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Ended]:
    monkeypatch.delenv("AMQPWORKER_APP", raising=False)
    return lambda line: run_here(capsys, *line.split())


@pytest.fixture(scope="module")
def document() -> Any:
    return json.loads(json.dumps(json_schema_document("shop", messages_of(app, "#/$defs/{model}"), NAMES)))


@pytest.fixture(scope="module")
def asyncapi() -> Any:
    found = messages_of(app, "#/components/schemas/{model}")
    return json.loads(json.dumps(asyncapi_document("shop", found, NAMES.tasks)))


def as_object(publication: Publication) -> dict[str, Any]:
    """Return a publication as the object that the schema describes."""
    properties = publication.properties.present()
    headers = properties.pop("headers", {})
    return {
        "exchange": publication.exchange,
        "routing_key": publication.routing_key,
        "properties": properties,
        "headers": headers,
        "body": json.loads(publication.body),
    }


def publications() -> Iterator[Publication]:
    """Yield each call of the shop as it is sent: at once, with a delay and an expiry, as a call."""
    for task, arguments, _ in calls():
        message = task.message(**arguments)
        version = task.options(delay=90.1, expires=600).message(**arguments)
        yield publication_of_send(message, NAMES, NOW, "shop")
        yield publication_of_send(version, NAMES, NOW)
        yield publication_of_call(message, "c-1", 5.0, NAMES, NOW)


# ---- the JSON Schema ------------------------------------------------------------------------------------------------


def test_the_json_schema_is_valid_and_each_message_that_is_sent_fits_it(document: Any) -> None:
    Draft202012Validator.check_schema(document)
    validator = Draft202012Validator(document)
    sent = list(publications())
    assert len(sent) > 10
    for publication in sent:
        validator.validate(as_object(publication))


def test_what_tasks_return_fits_the_schema_of_their_result_and_reply(document: Any) -> None:
    for task, _, value in calls():
        written = task.signature.encode_result(value)
        key = keys_of([task.name])[task.name]
        for part, content in (
            ("result", written),
            ("reply", encode_done(written)),
            ("reply", encode_failed("failed", Failure("OSError", "no route", "Traceback: …"))),
        ):
            schema = {"$ref": f"#/$defs/{key}.{part}", "$defs": document["$defs"]}
            Draft202012Validator(schema).validate(json.loads(content))


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("body", {}),
        ("body", {"order": {"sku": 5}}),
        ("body", {"order": {"sku": "a"}, "unknown": 1}),
        ("routing_key", "elsewhere"),
        ("exchange", "amqpworker.dead"),
        ("properties", {}),
        ("properties", {"type": "shop.place", "content_type": "text/plain"}),
        ("headers", {"aw-version": 3}),
        ("headers", {"aw-version": 2, "aw-eta": None}),
    ],
)
def test_what_a_worker_does_not_accept_does_not_fit_the_schema(document: Any, change: str, value: Any) -> None:
    place = app.tasks["shop.place"]
    message = as_object(publication_of_send(place.message(order={"sku": "a"}), NAMES, NOW))
    validator = Draft202012Validator(document)
    assert validator.is_valid(message)
    assert not validator.is_valid({**message, change: value})


def test_a_version_and_older_names_are_part_of_the_schema(document: Any) -> None:
    parts = document["$defs"]["shop.place.message"]["properties"]
    assert parts["properties"]["properties"]["type"] == {"enum": ["shop.place", "shop.order"]}
    assert parts["headers"]["allOf"][1]["properties"] == {"aw-version": {"const": 2}}
    assert parts["routing_key"] == {"const": "orders"}
    assert document["$defs"]["shop.place.message"]["description"] == "Place an order."


def test_a_class_is_described_once_for_all_tasks_and_fields_have_no_titles(document: Any) -> None:
    definitions = document["$defs"]
    assert definitions["shop.place.arguments"]["properties"]["order"] == {"$ref": "#/$defs/Order"}
    assert definitions["shop.list_orders.result"] == {"type": "array", "items": {"$ref": "#/$defs/Order"}}
    assert "title" not in definitions["Order"]["properties"]["sku"]


def test_what_may_be_left_out_has_its_default_if_json_has_it(document: Any) -> None:
    arguments = document["$defs"]["shop.mixed.arguments"]
    defaults = {name: schema.get("default", "-") for name, schema in arguments["properties"].items()}
    assert defaults == {"pair": "-", "data": "eA==", "pet": "-", "limit": "-", "args": "-", "more": "-"}
    assert arguments["required"] == ["pair", "pet"]


def test_a_remote_is_described_as_we_write_it_and_a_task_as_it_is_read(document: Any) -> None:
    definitions = document["$defs"]
    assert definitions["billing.charge.arguments"]["properties"]["amount"]["type"] == "string"
    assert {"type": "number"} in definitions["shop.prices.arguments"]["properties"]["amount"]["anyOf"]


def test_a_hint_without_a_json_schema_is_described_by_its_text(document: Any) -> None:
    (odd,) = document["$defs"]["shop.odd_one_.arguments"]["properties"].values()
    assert re.fullmatch(r"<class '.*Odd'>, for which there is no JSON schema", odd["description"])


# ---- AsyncAPI -------------------------------------------------------------------------------------------------------


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from ([value["$ref"]] if isinstance(value.get("$ref"), str) else [])
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from references(part)


def test_each_reference_of_either_document_leads_to_a_part_of_it(document: Any, asyncapi: Any) -> None:
    for whole in (document, asyncapi):
        found = set(references(whole))
        assert len(found) > 10
        for reference in found:
            part = whole
            for name in reference.removeprefix("#/").split("/"):
                part = part[name]


def test_bodies_and_headers_that_are_sent_fit_the_payloads_of_asyncapi(asyncapi: Any) -> None:
    """Its schemas are those of draft 7, in which tuples are written otherwise."""
    schemas = asyncapi["components"]["schemas"]
    for publication in publications():
        sent = as_object(publication)
        message = asyncapi["components"]["messages"][f"{keys_of([sent['properties']['type']]).popitem()[1]}.message"]
        for part, content in (("payload", sent["body"]), ("headers", sent["headers"])):
            schema = {"allOf": [message[part]], "components": {"schemas": schemas}}
            Draft7Validator.check_schema(schema)
            Draft7Validator(schema).validate(content)
    pair = schemas["shop.mixed.arguments"]["properties"]["pair"]
    assert pair["items"] == [{"type": "integer"}, {"type": "string"}]
    assert schemas["shop.mixed.arguments"]["properties"]["pet"]["discriminator"] == "kind"


def test_a_queue_is_a_channel_and_the_app_receives_its_tasks_and_sends_remote_ones(asyncapi: Any) -> None:
    assert asyncapi["asyncapi"] == "3.0.0"
    channel = asyncapi["channels"]["orders"]
    assert channel["address"] == "orders"
    assert channel["bindings"]["amqp"]["exchange"]["name"] == "amqpworker.tasks"
    assert sorted(channel["messages"]) == ["shop.list_orders.message", "shop.place.message"]
    assert asyncapi["operations"]["shop.place"]["action"] == "receive"
    assert asyncapi["operations"]["billing.charge"]["action"] == "send"
    message = asyncapi["components"]["messages"]["shop.place.message"]
    assert message["x-amqpworker"] == {"queue": "orders", "version": 2, "aliases": ["shop.order"]}
    assert message["bindings"]["amqp"]["messageType"] == "shop.place"


def test_names_that_no_key_may_have_get_a_key_of_their_own() -> None:
    assert keys_of(["a/b", "a b", "ä", "a_b"]) == {"a/b": "a_b", "a b": "a_b_2", "ä": "_", "a_b": "a_b_3"}
    assert keys_of(["replies"], taken=["replies"]) == {"replies": "replies_2"}


# ---- the command ----------------------------------------------------------------------------------------------------


def test_the_command_prints_either_document_and_takes_the_app_of_the_environment(
    cli: Callable[[str], Ended], document: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = cli("schema tests.unit.cli.schemashop:app")
    assert (ended.code, ended.err) == (0, "")
    assert ended.json == {**document, "title": "Messages of tests.unit.cli.schemashop:app"}
    monkeypatch.setenv("AMQPWORKER_APP", "tests.unit.cli.schemashop:app")
    assert cli("schema --format asyncapi").json["info"]["title"] == "tests.unit.cli.schemashop:app"
    assert "hidden" not in ended.out


def test_an_app_without_tasks_has_documents_too(cli: Callable[[str], Ended]) -> None:
    empty = cli("schema tests.unit.cli.schemashop:nothing").json
    Draft202012Validator.check_schema(empty)
    assert "oneOf" not in empty
    assert cli("schema tests.unit.cli.schemashop:nothing --format asyncapi").json["channels"] == {}


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("schema", "Missing argument 'MODULE:APP'"),
        (
            "schema tests.unit.cli.schemashop:app --format yaml",
            "--format: must be 'json-schema' or 'asyncapi', got 'yaml'.",
        ),
        ("schema tests.unit.cli.schemashop:missing", "missing"),
        ("schema no_such_module:app", "no_such_module"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(cli: Callable[[str], Ended], line: str, text: str) -> None:
    ended = cli(line)
    assert (ended.code, ended.out) == (2, "")
    assert text in ended.complaint()
