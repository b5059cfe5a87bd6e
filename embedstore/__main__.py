"""``python -m embedstore`` is ``embedstore``."""

from embedstore.cli import main

main(prog_name="embedstore")
