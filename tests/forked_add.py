"""Runs `embedstore` in a process of its own for each line of words on stdin, started within milliseconds.

Everything that an `add` imports is imported once; each command is a fork of that, so that a test can kill many of
them at moments that lie in the work rather than in the imports. For
each line it prints the process id, then waits for an empty line, and prints the wait status when the process has
ended; until then the id is nobody else's.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback


def run(words: list[str]) -> int:
    """Run one command and return its exit status."""
    from embedstore.cli import main

    try:
        main(words)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def say(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def serve() -> None:
    """Fork for each line."""
    import deltalake  # noqa: F401  (all these are imported so that the forks need not)
    import filelock  # noqa: F401
    import pyarrow.compute
    import pyarrow.parquet  # noqa: F401
    import tqdm  # noqa: F401
    from nomic import embed  # noqa: F401
    from PIL import Image

    from embedstore import store  # noqa: F401
    from embedstore.cli import main  # noqa: F401
    from embedstore.embedders import nomic_api  # noqa: F401
    from embedstore.ingest import adding  # noqa: F401

    Image.init()
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            # A suite that was started in the background ignores Ctrl-C, and so would its children.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            try:
                os._exit(run(json.loads(line)))
            except BaseException:  # noqa: BLE001  (a fork must not come back into the loop)
                traceback.print_exc()
                os._exit(70)
        say(pid)
        sys.stdin.readline()
        say(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    serve()
