"""What pika only guesses when a connection ends while it is being opened: the broker's word decides, not the moment."""

from __future__ import annotations

import pytest
from pika import exceptions
from pika.adapters.utils import connection_workflow as workflow

from amqpworker.broker.address import addresses
from amqpworker.broker.pika_errors import problem_of

(ADDRESS,) = addresses("amqp://me:hidden@broker.example/shop")
EOF = "StreamLostError: ('Transport indicated EOF',)"
LOGIN = "ConnectionClosedByBroker: (403) 'ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN.'"
VHOST = "ConnectionClosedByBroker: (530) 'NOT_ALLOWED - vhost shop not found'"
LIMIT = "ConnectionClosedByBroker: (530) 'NOT_ALLOWED - access to vhost refused for user me: connection limit (9) is reached'"

ACCESS = "ConnectionClosedByBroker: (530) \"NOT_ALLOWED - access to vhost 'shop' refused for user 'you'\""
MECHANISM = (
    "ConnectionClosedByBroker: (403) 'ACCESS_REFUSED - Login was refused using authentication mechanism EXTERNAL.'"
)
DOWN = "ConnectionClosedByBroker: (541) \"INTERNAL_ERROR - access to vhost 'shop' refused for user 'me': vhost 'shop' is down\""
STOPS = "ConnectionClosedByBroker: (320) 'CONNECTION_FORCED - broker is stopping'"


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (exceptions.ProbableAuthenticationError(LOGIN), "denied", "refused the login of user 'me'"),
        (exceptions.ProbableAccessDeniedError(VHOST), "denied", "has no virtual host 'shop'"),
        (exceptions.ProbableAccessDeniedError(ACCESS), "denied", "User 'you' has no access to virtual host 'shop'"),
        (exceptions.ProbableAuthenticationError(MECHANISM), "denied", "our certificate (the setting tls_cert)"),
        (exceptions.ProbableAccessDeniedError(DOWN), "unreachable", "vhost 'shop' is down (541)"),
        (exceptions.ProbableAuthenticationError(STOPS), "unreachable", "CONNECTION_FORCED - broker is stopping (320)"),
        (exceptions.ProbableAuthenticationError(EOF), "unreachable", "was lost while it was being opened"),
        (exceptions.ProbableAccessDeniedError(EOF), "unreachable", "was lost while it was being opened"),
        (exceptions.ProbableAccessDeniedError(LIMIT), "unreachable", "connection limit (9) is reached"),
    ],
)
def test_a_connection_that_breaks_while_it_is_opened_is_not_a_refusal(
    error: exceptions.AMQPConnectionError, kind: str, told: str
) -> None:
    for whole in (error, workflow.AMQPConnectionWorkflowFailed([workflow.AMQPConnectorAMQPHandshakeError(error)])):
        problem = problem_of(whole, ADDRESS)
        assert problem.kind == kind
        assert told in problem.text
        assert "hidden" not in problem.text
