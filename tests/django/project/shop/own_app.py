"""An app of the project's own, which a backend names."""

import os

from amqpworker import App

app = App(os.environ["SHOP_BROKER"], namespace="named")


@app.task(queue="plain")
def plain(number: int) -> int:
    return number
