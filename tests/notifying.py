"""A notifier in a process of its own, to be killed: takes notices as lines of JSON, says when each is on disk."""

import json
import sys
from pathlib import Path

from pydantic import TypeAdapter

from introspan_collector.notice import Notice
from introspan_collector.notify.notifier import Notifier
from introspan_collector.notify.settings import NotifySettings


def main() -> None:
    """Runs until its input ends: DIRECTORY SETTINGS-AS-JSON."""
    settings = TypeAdapter(NotifySettings).validate_python(json.loads(sys.argv[2]))
    notifier = Notifier(Path(sys.argv[1]), settings)
    notifier.start()
    print("started", flush=True)
    for line in sys.stdin:
        notifier.put(TypeAdapter(Notice).validate_json(line))
        print("put", flush=True)
    notifier.stop(5.0)


if __name__ == "__main__":
    main()
