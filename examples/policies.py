"""
Retry policies: any `tenacity.Retrying`. Its `stop`, `wait` and `retry` are asked; the waiting happens in the broker.

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
    """Tell whether it may work the next time."""
    return isinstance(error, URLError) and not (isinstance(error, HTTPError) and error.code < 500)


@app.task(
    retry=Retrying(
        retry=retry_if_exception(is_temporary),
        wait=wait_exponential_jitter(initial=1, max=600),
        stop=stop_after_delay(6 * 3600) | stop_after_attempt(50),  # counted from the first run, not from the sending
    )
)
def fetch(url: str) -> int:
    """Return the size of a page."""
    if not url.startswith("https://"):
        raise Reject("only https")  # never retried, whatever the policy says
    try:
        with urlopen(url, timeout=10) as answer:
            return len(answer.read())
    except HTTPError as error:
        if error.code == 429:  # the server says when: the policy's `stop` is asked, its `wait` is not
            raise RetryLater(delay=float(error.headers.get("Retry-After", 60))) from error
        raise


@app.task(
    retry=Retrying(retry=retry_if_result(lambda found: found < 3), wait=wait_fixed(2), stop=stop_after_attempt(5))
)
def poll() -> int:
    """Return something that is not good enough at first."""
    return current().attempt


@app.task(retry=[1, 5, 30])  # three retries, after these waits; retry=3 has waits of its own, retry=None has none
def short_form() -> None:
    """Fail, and fail again."""
    raise RuntimeError("as it must")
