"""`python -m darkroom.serve.worker`: a worker beside an API, which tells it its settings and rings through its standard
input, and hears through its standard output when there is news. It ends when that input does."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading

from darkroom.library.locate import names_only
from darkroom.serve.database import Database
from darkroom.serve.objects import objects_at
from darkroom.serve.settings import Serving
from darkroom.serve.worker.worker import Worker


def main() -> None:
    logging.basicConfig(format="%(levelname)s worker: %(message)s", level=logging.INFO, stream=sys.stderr)
    serving = Serving(**json.loads(sys.stdin.readline())).checked()
    names_only([serving.model])
    assert serving.database is not None and serving.store is not None
    database = Database(serving.database)
    worker = Worker(serving, database, objects_at(serving.store))

    def heard() -> None:
        print("news", flush=True)

    def listen() -> None:
        for word in sys.stdin:
            if word.strip() == "hurry":
                worker.drain(hurry=True)
            worker.ring()
        worker.drain()

    database.told.append(heard)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The API is told, and tells.
    worker.ends_with(signal.SIGTERM)
    threading.Thread(target=listen, name="bell", daemon=True).start()
    worker.run()
    database.close()
    logging.shutdown()
    os._exit(0)  # Not waiting for a thread that loads a model for nobody.


if __name__ == "__main__":
    main()
