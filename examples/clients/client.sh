#!/usr/bin/env bash
# Sends to the task of tasks.py by the management API, with curl: bash client.sh. It cannot receive, so it cannot call.
# AMQPWORKER_MANAGEMENT is the API with its login, and the virtual host is that of AMQPWORKER_URL.
set -euo pipefail

api=${AMQPWORKER_MANAGEMENT:-http://guest:guest@localhost:15672}
address=${AMQPWORKER_URL:-amqp://localhost}
address=${address#*://}
address=${address%%\?*}
vhost=%2F
[[ $address != */?* ]] || vhost=${address#*/}

# route MILLISECONDS: sets the exchange, and the headers in JSON, of a message that is due then.
route() {
    local units=$((($1 + 124) / 125)) bit level
    exchange=amqpworker.tasks headers=
    ((units)) || return 0
    headers="\"aw-eta\": $(($(date +%s%3N) + $1))"
    for ((bit = 0; bit <= 30; bit++)); do
        ((units >> bit & 1)) || continue
        level=$(printf %02d "$bit")
        headers+=", \"aw-wait-$level\": true"
        exchange=amqpworker.delay.$level
    done
}

# send QUEUE TASK PARAMETERS [MILLISECONDS]: publishes a message; fails if no queue took it.
send() {
    route "${4:-0}"
    local properties message reply
    properties="\"type\": \"$2\", \"message_id\": \"$(</proc/sys/kernel/random/uuid)\", \"delivery_mode\": 2"
    properties+=", \"content_type\": \"application/json\", \"headers\": {$headers}"
    message="{\"routing_key\": \"$1\", \"properties\": {$properties}, \"payload_encoding\": \"base64\""
    message+=", \"payload\": \"$(printf %s "$3" | base64 --wrap 0)\"}"
    # The API publishes with confirms and `mandatory`, and replies whether a queue took this message.
    reply=$(curl --silent --show-error --fail --header "content-type: application/json" --data-binary @- \
        "${api%/}/api/exchanges/$vhost/$exchange/publish" <<<"$message") || exit 1
    [[ $reply == *'"routed":true'* ]] || {
        echo "send: queue $1 does not exist"
        return 1
    }
}

send welcomes shop.welcome '{"user_id": 1}' && echo "sent"
send welcomes shop.welcome '{"user_id": 2}' 1500 && echo "sent, due in 1.5 s"
send invoices shop.welcome '{"user_id": 4}' || true
