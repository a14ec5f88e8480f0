"""What pika only guesses when a connection ends while it is being opened: the broker's word decides, not the moment."""

from __future__ import annotations

import pytest
from pika import exceptions
from pika.adapters.utils import connection_workflow as workflow

from amqpworker.broker.address import addresses
from amqpworker.broker.reasons import problem_of

(ADDRESS,) = addresses("amqp://me:hidden@broker.example/shop")
EOF = "StreamLostError: ('Transport indicated EOF',)"
LOGIN = "ConnectionClosedByBroker: (403) 'ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN.'"
VHOST = "ConnectionClosedByBroker: (530) 'NOT_ALLOWED - vhost shop not found'"
LIMIT = "ConnectionClosedByBroker: (530) 'NOT_ALLOWED - access to vhost refused for user me: connection limit (9) is reached'"


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (exceptions.ProbableAuthenticationError(LOGIN), "refused", "refused the login of user 'me'"),
        (exceptions.ProbableAccessDeniedError(VHOST), "refused", "may not enter virtual host 'shop'"),
        (exceptions.ProbableAuthenticationError(EOF), "away", "broke while it was being opened"),
        (exceptions.ProbableAccessDeniedError(EOF), "away", "broke while it was being opened"),
        (exceptions.ProbableAccessDeniedError(LIMIT), "away", "connection limit (9) is reached"),
    ],
)
def test_a_connection_that_breaks_while_it_is_opened_is_no_refusal(
    error: exceptions.AMQPConnectionError, kind: str, told: str
) -> None:
    for whole in (error, workflow.AMQPConnectionWorkflowFailed([workflow.AMQPConnectorAMQPHandshakeError(error)])):
        problem = problem_of(whole, ADDRESS)
        assert problem.kind == kind
        assert told in problem.text
        assert "hidden" not in problem.text
