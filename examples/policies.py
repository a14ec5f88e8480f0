"""
Retry policies: any `tenacity.Retrying`. Its `stop`, `wait` and `retry` decide; the message waits in the broker.

    amqpworker worker examples.policies:app -p 1
    amqpworker send examples.policies.fetch url=https://example.invalid/ --app examples.policies:app
    amqpworker dead list --app examples.policies:app
"""

from __future__ import annotations

from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from tenacity import (
    Retrying,
    retry_if_exception,
    retry_if_result,
    stop_after_attempt,
    stop_after_delay,
    wait_exponential_jitter,
    wait_fixed,
)

from amqpworker import App, Reject, RetryLater, current

app = App(default_queue="web")


def is_temporary(error: BaseException) -> bool:
    """Return whether a retry may succeed."""
    return isinstance(error, URLError) and not (isinstance(error, HTTPError) and error.code < 500)


@app.task(
    retry=Retrying(
        retry=retry_if_exception(is_temporary),
        wait=wait_exponential_jitter(initial=1, max=600),
        stop=stop_after_delay(6 * 3600) | stop_after_attempt(50),  # counted from the first run, not from the send
    )
)
def fetch(url: str) -> int:
    """Return the size of a page."""
    if not url.startswith("https://"):
        raise Reject("only https")  # never retried, whatever the policy is
    try:
        with urlopen(url, timeout=10) as response:
            return len(response.read())
    except HTTPError as error:
        if error.code == 429:  # the server decides when: the policy's `stop` applies, its `wait` does not
            raise RetryLater(delay=float(error.headers.get("Retry-After", 60))) from error
        raise


@app.task(
    retry=Retrying(retry=retry_if_result(lambda found: found < 3), wait=wait_fixed(2), stop=stop_after_attempt(5))
)
def poll() -> int:
    """Return a value that the policy accepts only at the third attempt."""
    return current().attempt


@app.task(retry=[1, 5, 30])  # three retries after these delays; retry=3 has default delays, retry=None means no retries
def short_form() -> None:
    """Fail at each attempt."""
    raise RuntimeError("always")
