"""A value that is an instance of its hint arrives equal, in arguments and results, or is refused by name."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import functools
import ipaddress
import pathlib
import re
import uuid
import zoneinfo
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
import typing_extensions
from pydantic import (
    AfterValidator,
    AliasChoices,
    AliasPath,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    HttpUrl,
    PlainSerializer,
    PrivateAttr,
    RootModel,
    Secret,
    SecretBytes,
    SecretStr,
    SerializeAsAny,
    Tag,
    computed_field,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.dataclasses import dataclass as pydantic_dataclass

from amqpworker.errors import ConfigError, InvalidArguments, InvalidResult
from tests.unit.signature.signatures import (
    Colour,
    Level,
    Loose,
    Order,
    Packed,
    Point,
    Row,
    UserId,
    returning,
    run_value,
    taking,
)

NOON = dt.datetime(2026, 1, 2, 12, tzinfo=dt.UTC)


class Word(enum.StrEnum):
    RED = "red"


class OldWord(str, enum.Enum):  # noqa: UP042 - what much code has, and what StrEnum does otherwise
    RED = "red"


class Login(BaseModel):
    user: str
    password: SecretStr


@dataclasses.dataclass
class Token:
    key: SecretBytes


class Revealed(BaseModel):
    password: SecretStr

    @field_serializer("password")
    def reveal(self, value: SecretStr) -> str:
        return value.get_secret_value()


class Base(BaseModel):
    a: int = 0


class Sub(Base):
    b: int = 0


@dataclasses.dataclass
class Parent:
    a: int = 0


@dataclasses.dataclass
class Child(Parent):
    b: int = 0


class Holder(BaseModel):
    one: Base = Base()
    many: list[Base] = []


@dataclasses.dataclass
class Box:
    one: Parent


class Hidden(BaseModel):
    a: int
    note: str = Field(default="", exclude=True)


@dataclasses.dataclass
class Cents:
    amount: int

    def __post_init__(self) -> None:
        self.amount *= 100


@dataclasses.dataclass
class Slug:
    text: str

    def __post_init__(self) -> None:
        self.text = self.text.lower()


@dataclasses.dataclass
class Total:
    a: int
    total: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.total = self.a + 1


@pydantic_dataclass
class Scaled:
    a: int
    factor: dataclasses.InitVar[int]


class ReadOnlyAlias(BaseModel):
    order_id: int = Field(validation_alias="orderId")


class WriteOnlyAlias(BaseModel):
    order_id: int = Field(serialization_alias="orderId")


class Choices(BaseModel):
    order_id: int = Field(validation_alias=AliasChoices("orderId", "id"))


class Deep(BaseModel):
    order_id: int = Field(validation_alias=AliasPath("order", "id"))


class ByBoth(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    order_id: int = Field(validation_alias=AliasChoices("orderId", "id"))


class OwnNameToo(BaseModel):
    order_id: int = Field(validation_alias=AliasChoices("order_id", "id"))


class Lifted(BaseModel):
    order_id: int = Field(validation_alias="orderId")

    @model_validator(mode="before")
    @classmethod
    def lift(cls, data: Any) -> Any:
        return {"orderId": data["order_id"]} if isinstance(data, dict) and "order_id" in data else data


class Renamed(BaseModel):
    a: int

    @model_serializer
    def write(self) -> dict[str, Any]:
        return {"b": self.a}


class Counted(BaseModel):
    a: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def double(self) -> int:
        return self.a * 2

    @functools.cached_property
    def triple(self) -> int:
        return self.a * 3


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    a: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def double(self) -> int:
        return self.a * 2


class Private(BaseModel):
    a: int
    _seen: int = PrivateAttr(0)


@dataclasses.dataclass(eq=False)
class Identity:
    a: int
    inner: Base = dataclasses.field(default_factory=Base)


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    tricks: list[str] = []


class Coin(BaseModel):
    value: int


class Stamp(BaseModel):
    value: int


class Checked(BaseModel):
    code: Annotated[str, Field(pattern="^[A-Z]{3}$")]

    @field_validator("code")
    @classmethod
    def known(cls, value: str) -> str:
        raise AssertionError(f"no code of the user's runs at decoration, and not with {value}")


class Tree(BaseModel):
    parts: list[Tree | int] = []


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]
UuidOrText = Annotated[
    Annotated[uuid.UUID, Tag("uuid")] | Annotated[list[str], Tag("texts")],
    Discriminator(lambda value: "texts" if isinstance(value, list) else "uuid"),
]
Json = typing_extensions.TypeAliasType("Json", "dict[str, Json] | list[Json] | str | int | float | bool | None")


def refused_at_decoration(hint: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=rf"^Task 'shop\.task': parameter 'p'{text}"):
        taking(hint)
    with pytest.raises(ConfigError, match=rf"^Task 'shop\.task': the return value{text}"):
        returning(hint)


def refused_when_sent(hint: Any, value: Any, text: str) -> None:
    with pytest.raises(InvalidArguments, match=rf"^Task 'shop\.task': parameter 'p'{text}") as caught:
        taking(hint).encode((value,), {})
    assert "s3cret" not in str(caught.value)
    with pytest.raises(InvalidResult, match=rf"^Task 'shop\.task': the return value{text}"):
        returning(hint).encode_result(value)


def arrives(hint: Any, value: Any) -> None:
    arrived = run_value(hint, value)
    assert arrived == value
    assert type(arrived) is type(value)
    signature = returning(hint)
    assert signature.decode_result(signature.encode_result(value)) == value


@pytest.mark.parametrize(
    ("hint", "place"),
    [
        (SecretStr, ""),
        (Secret[int], ""),
        (list[SecretStr | None], ""),
        (Login, r" at Login\.password"),
        (Token, r" at Token\.key"),
        (list[Login], r" at Login\.password"),
        (dict[str, Token], r" at Token\.key"),
        (RootModel[list[Login]], r" at Login\.password"),
        (Annotated[Login, AfterValidator(lambda login: login)], r" at Login\.password"),
    ],
)
def test_a_secret_is_refused_at_decoration_wherever_it_lies(hint: Any, place: str) -> None:
    refused_at_decoration(hint, rf"{place} .*asterisks.*name of a secret")


def test_a_secret_that_its_model_reveals_is_carried() -> None:
    arrives(Revealed, Revealed(password=SecretStr("x")))
    arrives(list[Revealed], [Revealed(password=SecretStr("x"))])


@pytest.mark.parametrize("hint", [bytes, list[bytes], dict[str, bytes], bytes | None, bytes | int])
def test_text_for_bytes_is_its_utf_8_and_never_read_as_base64(hint: Any) -> None:
    wrap: Callable[[Any], Any] = {list[bytes]: lambda v: [v], dict[str, bytes]: lambda v: {"k": v}}.get(
        hint, lambda v: v
    )
    for text in ("text", "é", "abcd", "not base64!"):
        assert run_value(hint, wrap(text)) == wrap(text.encode())
    assert run_value(hint, wrap(bytearray(b"\xff"))) == wrap(b"\xff")


def test_text_for_bytes_inside_a_dataclass_is_its_utf_8_too() -> None:
    assert run_value(Point, {"x": 1, "data": "text"}) == Point(1, data=b"text")


def test_what_pydantic_converts_is_converted_when_it_is_sent() -> None:
    assert run_value(int, "42") == 42
    assert run_value(list[int], ("1", 2.0)) == [1, 2]
    assert run_value(Base, {"a": "1"}) == Base(a=1)
    assert run_value(dt.datetime, "2026-01-02T12:00:00Z") == NOON
    assert taking(int).encode(("42",), {}) == b'{"p":42}'


@pytest.mark.parametrize(
    ("hint", "value", "text"),
    [
        (Base, Sub(), ": Sub would arrive as Base; .*Discriminator"),
        (list[Base], [Base(), Sub(b=1)], r" at \[1\]: Sub would arrive as Base"),
        (Holder, Holder(one=Sub()), r" at one: Sub would arrive as Base"),
        (Holder, Holder(many=[Sub()]), r" at many\[0\]: Sub would arrive as Base"),
        (dict[str, Base], {"s3cret": Sub()}, ": Sub would arrive as Base"),
        (Parent, Child(), ": Child would arrive as Parent"),
        (Box, Box(Child()), r" at one: Child would arrive as Parent"),
        (Base | None, Sub(), ": Sub would arrive as Base"),
        (Base | int, Sub(), ": Sub would arrive as Base"),
        (SerializeAsAny[Base], Sub(b=2), ": Sub would arrive as Base"),
    ],
)
def test_an_instance_of_a_subclass_is_refused_rather_than_cut_down(hint: Any, value: Any, text: str) -> None:
    refused_when_sent(hint, value, text)


@pytest.mark.parametrize(
    ("hint", "text"),
    [
        (Hidden, r" at Hidden\.note .*exclude"),
        (list[Hidden], r" at Hidden\.note .*exclude"),
        (Total, r" at Total\.total .*init=False"),
        (dict[str, Total], r" at Total\.total .*init=False"),
        (Scaled, r" at Scaled\.factor .*InitVar"),
        (ReadOnlyAlias, r" at ReadOnlyAlias\.order_id .*'order_id'.*alias"),
        (WriteOnlyAlias, r" at WriteOnlyAlias\.order_id .*'orderId'.*alias"),
        (Choices, r" at Choices\.order_id .*'order_id'.*alias"),
        (Deep, r" at Deep\.order_id .*'order_id'.*alias"),
    ],
)
def test_a_field_that_json_would_lose_is_refused_at_decoration(hint: Any, text: str) -> None:
    refused_at_decoration(hint, text)


@pytest.mark.parametrize(
    "value",
    [
        ByBoth(id=1),  # type: ignore[call-arg]
        OwnNameToo(order_id=1),
        Lifted(orderId=1),  # type: ignore[call-arg]
        Order(orderId=1),
        Counted(a=1),
        Strict(a=1),
        Private(a=1),
        Slug("Ab"),
        Tree(parts=[1, Tree()]),
    ],
)
def test_models_whose_fields_are_read_as_they_are_written_are_carried(value: Any) -> None:
    arrives(type(value), value)


class Planet(enum.Enum):
    """As Python's documentation has it."""

    EARTH = (5.976e24, 6.37814e6)

    def __init__(self, mass: float, radius: float) -> None:
        self.mass = mass
        self.radius = radius


class Found(enum.Enum):
    """One that makes its members of what arrives."""

    PAIR = (1, 2)

    @classmethod
    def _missing_(cls, value: Any) -> Any:
        return cls((*value,)) if isinstance(value, list) else None


class Day(enum.Enum):
    FIRST = dt.date(2026, 1, 1)


class Mixed(enum.Enum):
    TEXT, NUMBER, HALF, NONE, TRUE = "a", 7, 0.5, None, True


def test_an_enum_whose_values_json_cannot_carry_is_refused_at_decoration() -> None:
    refused_at_decoration(Planet, r" has an Enum in its hint .*JSON cannot carry \(Planet\).*text")
    refused_at_decoration(list[Day] | None, r" has an Enum in its hint .*JSON cannot carry \(Day\).*text")


def test_enums_that_can_be_read_from_json_are_carried() -> None:
    for member in (Found.PAIR, *Mixed):
        arrives(type(member), member)
    read = BeforeValidator(lambda value: Planet((*value,)) if isinstance(value, list) else value)
    arrives(Annotated[Planet, read], Planet.EARTH)
    named = PlainSerializer(lambda planet: planet.name)
    arrives(Annotated[Planet, named, BeforeValidator(lambda v: Planet[v] if isinstance(v, str) else v)], Planet.EARTH)


def test_the_base_of_all_models_is_refused_as_a_hint() -> None:
    refused_at_decoration(BaseModel, r" has BaseModel itself in its hint.*name the model")
    refused_at_decoration(dict[str, BaseModel], r" has BaseModel itself in its hint.*name the model")


class Notes(BaseModel):
    _lines: list[str] = PrivateAttr(default_factory=list)


def test_what_is_lost_of_a_list_is_not_reported_as_a_key() -> None:
    notes = Notes()
    notes._lines.append("lost")
    refused_when_sent(Notes, notes, r" at _lines: a private attribute is not sent; use a field")
    refused_when_sent(
        Annotated[list[int], AfterValidator(lambda v: v[1:])], [1, 2], r": it would arrive as another list"
    )


def test_a_serializer_that_writes_what_cannot_be_read_is_named() -> None:
    refused_when_sent(
        Renamed, Renamed(a=1), r": .*JSON .*cannot be read back: the value at a: Field required; .*serializer"
    )


def test_what_its_class_would_convert_again_is_refused() -> None:
    refused_when_sent(Cents, Cents(1), r" at amount: .*another int.*__post_init__")
    refused_when_sent(Annotated[int, AfterValidator(lambda n: n + 1)], 1, r": .*another int.*validator")
    assert run_value(Annotated[str, AfterValidator(str.strip)], " x ") == "x"
    assert run_value(
        Annotated[list[str], BeforeValidator(lambda v: v.split() if isinstance(v, str) else v)], "a b"
    ) == [
        "a",
        "b",
    ]


def test_what_lies_in_any_arrives_equal_or_is_refused() -> None:
    refused_when_sent(Loose, Loose(anything=NOON.date()), r" at anything: date would arrive as str")
    refused_when_sent(Loose, Loose(anything={"a": [{1}]}), r" at anything\[0\]: set would arrive as list")
    refused_when_sent(Loose, Loose(anything={1: 2}), r" at anything: a key of type int would arrive as str")
    refused_when_sent(Any, (1, 2), ": tuple would arrive as list; .*hint")
    refused_when_sent(Any, [{"a": Base()}], r" at \[0\]: Base would arrive as dict")
    refused_when_sent(Any, {"a": [object()]}, r" at \[0\]: object is not JSON serializable")
    refused_when_sent(Sequence[int], (1, 2), ": tuple would arrive as list")
    refused_when_sent(Loose, Loose(anything="\ud800"), ".*surrogate")
    arrives(Loose, Loose(anything={"a": [1, None, {"b": "x"}]}))
    arrives(Sequence[int], [1, 2])


def test_private_attributes_are_not_lost_silently() -> None:
    model = Private(a=1)
    model._seen = 5
    refused_when_sent(Private, model, " at _seen: a private attribute is not sent")


def test_caches_and_classes_without_equality_are_accepted() -> None:
    counted = Counted(a=1)
    assert counted.triple == 3
    assert run_value(Counted, counted).a == 1
    assert run_value(Identity, Identity(5)).a == 5
    refused_when_sent(Identity, Identity(5, Sub()), " at inner: Sub would arrive as Base")


def test_an_offset_with_seconds_is_refused_which_json_has_no_room_for() -> None:
    zone = dt.timezone(dt.timedelta(minutes=9, seconds=21))
    for hint, value in ((dt.datetime, NOON.astimezone(zone)), (dt.time, dt.time(1, tzinfo=zone))):
        refused_when_sent(hint, value, f": .*another {hint.__name__}: JSON cannot hold")
        refused_when_sent(dict[str, hint], {"s3cret": value}, f": .*another {hint.__name__}: JSON cannot hold")
        refused_when_sent(dict[hint, str], {value: "a"}, f": a key would arrive as another {hint.__name__}: ")
    refused_when_sent(re.Pattern, re.compile("a", re.IGNORECASE), ": .*another Pattern: JSON cannot hold")
    arrives(re.Pattern, re.compile("a"))


def test_the_hour_that_a_clock_repeats_is_carried_in_models_too() -> None:
    class Event(BaseModel):
        at: dt.datetime

    twice = dt.datetime(2026, 10, 25, 2, 30, tzinfo=zoneinfo.ZoneInfo("Europe/Paris"))
    assert run_value(Event, Event(at=twice)).at.utcoffset() == twice.utcoffset()


@pytest.mark.parametrize(
    "hint",
    [
        uuid.UUID | str,
        str | uuid.UUID,
        str | uuid.UUID | None,
        list[uuid.UUID | str],
        dict[str, uuid.UUID | str],
        dt.datetime | str,
        str | dt.date,
        pathlib.Path | str,
        str | pathlib.Path,
        pathlib.Path | uuid.UUID,
        bytes | str,
        str | bytes,
        Base | dict[str, Any],
        dict[str, int] | Base,
        dict | Checked,
        Colour | str,
        str | Colour,
        tuple[int, ...] | list[int],
        list | tuple,
        set[int] | list[int],
        Decimal | str,
        HttpUrl | str,
        Coin | Stamp,
        list[Coin] | list[Stamp],
        dict[str, Coin] | dict[str, Stamp],
        list[Coin] | Sequence[Stamp],
        bytes | Decimal,
        Sub | Base,
        Point | dict[str, Any],
        Row | dict[str, Any],
        uuid.UUID | Any,
        Annotated[uuid.UUID | str, Field(union_mode="left_to_right")],
        Annotated[int | str, Field(union_mode="left_to_right")],
    ],
)
def test_a_union_whose_members_json_confuses_is_refused_and_the_way_out_named(hint: Any) -> None:
    refused_at_decoration(hint, " .*arrive as.*Discriminator.*narrower hint")


def test_members_are_tried_without_their_optional_fields_too() -> None:
    @dataclasses.dataclass
    class Noted:
        part: str
        note: str = ""

    class Keyed(typing_extensions.TypedDict):
        part: str
        more: typing_extensions.NotRequired[int]

    # {"part": …, "more": …} can only be Keyed; without "more" it would arrive as Noted.
    refused_at_decoration(Noted | Keyed, " .*arrive as.*Discriminator.*narrower hint")


def test_a_union_inside_a_model_is_refused_with_its_place() -> None:
    class Ticket(BaseModel):
        number: uuid.UUID | str

    refused_at_decoration(list[Ticket], r" at Ticket\.number .*str .*UUID")


@pytest.mark.parametrize(
    ("hint", "values"),
    [
        (int | str, [1, "1", "a"]),
        (str | int | None, [1, "1", None]),
        (int | float, [1, 1.0, 1.5, 2**70]),
        (float | int, [1, 1.5]),
        (bool | int, [True, 1]),
        (bool | str, [True, "true"]),
        (int | float | str | bool | None, [1, 1.5, "1.5", True, None]),
        (Decimal | int, [Decimal("1.0"), 1]),
        (Decimal | float, [Decimal("1.5"), 1.5]),
        (uuid.UUID | int, [uuid.UUID(int=1), 1]),
        (dt.datetime | int, [NOON, 1]),
        (dt.date | dt.datetime, [NOON, NOON.date(), dt.datetime(2026, 1, 2)]),  # noqa: DTZ001
        (dt.datetime | dt.date, [NOON, NOON.date()]),
        (Literal["a"] | int, ["a", 1]),
        (Literal["a"] | str, ["a", "b"]),  # noqa: PYI051
        (Word | str, [Word.RED, "red", "x"]),
        (OldWord | str, [OldWord.RED, "red", "x"]),
        (Colour | int, [Colour.RED, 1]),
        (Level | int, [Level.LOW, 1, 2]),
        (bytes | int, [b"x", 1]),
        (ipaddress.IPv4Address | ipaddress.IPv6Address, [*map(ipaddress.ip_address, ("10.0.0.1", "::1"))]),
        (list[int] | int, [[1], 1]),
        (list[int] | list[str], [[1], ["1"], []]),
        (list[str] | str | None, [["a"], "a", None]),
        (list[int] | dict[str, int], [[1], {"a": 1}]),
        (frozenset[int] | set[int], [{1}, frozenset({1})]),
        (tuple[int, int] | int, [(1, 2), 1]),
        (Base | int, [Base(a=1), 1]),
        (Base | str | None, [Base(a=1), "a", None]),
        (Base | list[Base], [Base(a=1), [Base(a=1)]]),
        (Cat | Dog, [Cat(), Dog(tricks=["a"])]),
        (Order | Packed, [Order(orderId=1), Packed(data=b"\xff")]),
        (Row | int, [{"key": "a", "weight": 1.5, "data": b"\xff"}, 1]),
        (Base | Sub, [Base(a=1), Sub(b=2)]),
        (Point | Row, [Point(1.0), {"key": "a", "weight": 1.5, "data": b"\xff"}]),
        (Json, [{"a": [1, "x", None, 1.5, True]}]),
        (UserId | str, [UserId(1), "1"]),
        (Pet, [Cat(lives=1), Dog(tricks=["a"])]),
        (list[Pet], [[Cat(), Dog()]]),
        (UuidOrText, [uuid.UUID(int=1), ["a"]]),
        (Annotated[int | str, AfterValidator(lambda v: v)], [1, "a"]),
    ],
)
def test_a_union_that_json_distinguishes_is_carried(hint: Any, values: list[Any]) -> None:
    for value in values:
        arrived = run_value(hint, value)
        assert arrived == value
        assert isinstance(arrived, type(value)) or isinstance(value, str | int | frozenset | set)
    returning(hint)
