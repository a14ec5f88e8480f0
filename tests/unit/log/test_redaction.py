"""No password of a URL is shown, malformed URLs included."""

from __future__ import annotations

import json
import re
import time
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from amqpworker.log.redaction import redact_text, redact_url, redact_value


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://user:pw@host:5672/vhost", "amqp://user:***@host:5672/vhost"),
        ("amqps://user:pw@host/%2f?heartbeat=5", "amqps://user:***@host/%2f?heartbeat=5"),
        ("amqp://user:p%40s%2Fs@host/", "amqp://user:***@host/"),
        ("amqp://us%3Aer:pw@host/", "amqp://us%3Aer:***@host/"),
        ("amqp://:pw@host", "amqp://:***@host"),
        ("amqp://user:@host", "amqp://user:***@host"),
        ("amqp://user:pw@[::1]:5672/", "amqp://user:***@[::1]:5672/"),
        ("amqp://[::1]:5672/", "amqp://[::1]:5672/"),
        ("amqp://[::1]", "amqp://[::1]"),
        ("amqp://host:5672/vhost", "amqp://host:5672/vhost"),
        ("amqp://host", "amqp://host"),
        ("amqp://user@host/", "amqp://user@host/"),
        ("amqp://a:1@h1,amqps://b:2@h2:5671/v, amqp://h3", "amqp://a:***@h1,amqps://b:***@h2:5671/v, amqp://h3"),
        ("amqp://h/?password=pw", "amqp://h/?password=***"),
        ("amqp://user:pw@h/v?a=1&Pass=p%26w&b=2#c", "amqp://user:***@h/v?a=1&Pass=***&b=2#c"),
        # malformed ones
        ("amqp://user:p@ss@host/", "amqp://user:***@host/"),
        ("amqp://user:p/w?x#y@host/", "amqp://user:***@host/"),
        ("amqp://user:p@s/w:x@host/", "amqp://user:***@host/"),
        ("amqp://user:p w\n@host/", "amqp://user:***@host/"),
        ("amqp://user:12/34@host/", "amqp://user:***@host/"),
        ("amqp://user:secret", "amqp://user:***"),
        ("amqp://user:secret/vhost", "amqp://user:***/vhost"),
        ("amqp:/user:secret@host", "amqp:***@host"),
        ("user:secret@host", "user:***@host"),
        ("amqp://[::1:x@host", "amqp://[:***@host"),
        ("amqp://", "amqp://"),
        ("", ""),
        ("sqlite:////var/lib/results.db", "sqlite:////var/lib/results.db"),
        ("sqlite:///results.db", "sqlite:///results.db"),
    ],
)
def test_the_password_of_a_url_is_hidden(url: str, shown: str) -> None:
    assert redact_url(url) == shown


@given(st.text(min_size=1), st.sampled_from(["amqp", "amqps", "redis"]))
def test_an_encoded_password_is_hidden_whatever_it_is_and_the_rest_is_shown(password: str, scheme: str) -> None:
    try:
        encoded = quote(password, safe="!$&'()*+;=~")  # commas separate URLs here
    except UnicodeEncodeError:
        return
    url = f"{scheme}://user:{encoded}@host:1/v"
    assert redact_url(url) == f"{scheme}://user:***@host:1/v"
    assert redact_text(f"trying {url} again") == f"trying {scheme}://user:***@host:1/v again"
    assert redact_text(json.dumps([url, 1])) == json.dumps([f"{scheme}://user:***@host:1/v", 1])


@given(st.text(alphabet="abc:/?#@[]%, é", min_size=1))
def test_a_password_that_is_not_encoded_is_hidden_as_well(password: str) -> None:
    assume(not re.search(r"[,\s]\s*[abc]+://", password))  # which would be a list of URLs
    url = f"amqp://user:S{password}S@host"
    shown = redact_url(url)
    assert shown.endswith("@host")
    assert "S" not in shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("nothing here", "nothing here"),
        ("mail me@example.org", "mail me@example.org"),
        ("see http://host:80/, or mail me@example.org", "see http://host:80/, or mail me@example.org"),
        ("{'u':'http://host:80','m':'me@example.org'}", "{'u':'http://host:80','m':'me@example.org'}"),
        ("https://example.org/@me", "https://example.org/@me"),
        ("no amqp://u:p@h1/ nor amqp://u:p@h2/!", "no amqp://u:***@h1/ nor amqp://u:***@h2/!"),
        ("amqp://u:p@h1,amqp://u:p@h2", "amqp://u:***@h1,amqp://u:***@h2"),
        ("amqp://u:p@ss/wo@rd@h1", "amqp://u:***@h1"),
        ("amqp://user:0)@host, amqp://user:1;'x@host", "amqp://user:***@host, amqp://user:***@host"),
        ("http://a,http://u:p@h", "http://a,http://u:***@h"),
        ("(see http://host:80), or mail me@example.org", "(see http://host:80), or mail me@example.org"),
        ("http://[::1]:80/a@b", "http://[::1]:80/a@b"),
        ("'postgres://:p@h'", "'postgres://:***@h'"),
        ("'amqp://h/?password=p', and more", "'amqp://h/?password=***', and more"),
        ("Is it amqp://h? token=none", "Is it amqp://h? token=none"),
    ],
)
def test_passwords_in_a_text_are_hidden(text: str, shown: str) -> None:
    assert redact_text(text) == shown


@given(st.text())
def test_any_text_passes(text: str) -> None:
    assert isinstance(redact_text(text), str)
    assert isinstance(redact_url(text), str)


@pytest.mark.parametrize("end", ["", "@", " @ ://", "\n?"])
@pytest.mark.parametrize(
    "part",
    [
        "://",
        "://a:",
        "://a:x",
        "://a@",
        "://a:@",
        "://[:",
        "://[a",
        "://a:1",
        "://a:1;a",
        "a://b:c ",
        "'a://",
        ",http://u:p",
        "((((abcdefghijklmnopqrstuvwxyzabcd:/",
        "?password=",
        "&pass=x",
        ":",
        "@",
        "x",
        " ",
    ],
)
def test_a_text_of_a_megabyte_takes_no_long_time_whatever_it_is(part: str, end: str) -> None:
    text = part * (1_000_000 // len(part)) + end
    before = time.process_time()
    redact_text(text)
    redact_url(text)
    assert time.process_time() - before < 5, "where each part is compared with all others it takes minutes"


@given(
    st.lists(
        st.sampled_from(["://", "a", ":", "@", "/", " ", ",", "'", "(", "[", "]", "1", ";", "?", "http", "\n"]),
        min_size=1,
        max_size=6,
    )
)
def test_four_times_the_text_takes_about_four_times_as_long(parts: list[str]) -> None:
    part = "".join(parts)

    def seconds(size: int) -> float:
        text = part * (size // len(part)) + "@ ://"
        before = time.process_time()
        redact_text(text)
        return time.process_time() - before

    assert seconds(80_000) < 0.5 + 40 * seconds(20_000)


def test_values_are_redacted_at_any_depth() -> None:
    url, shown = "amqp://u:pw@h", "amqp://u:***@h"
    assert redact_value({"a": [url, (url, {url: {"b": {url}}})], "n": 1, "f": 1.5, "t": True, "x": None}) == {
        "a": [shown, [shown, {shown: {"b": [shown]}}]],
        "n": 1,
        "f": 1.5,
        "t": True,
        "x": None,
    }
    assert redact_value(url.encode()) == repr(shown.encode())
    assert redact_value(ValueError(f"no {url}")) == f"ValueError: no {shown}"


def test_a_value_that_holds_itself_ends() -> None:
    value: list[object] = []
    value.append(value)
    assert "..." in str(redact_value(value))


def test_a_value_whose_text_fails_is_named() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError("never")

    assert redact_value([Broken()]) == ["<Broken, whose repr() raised RuntimeError>"]
