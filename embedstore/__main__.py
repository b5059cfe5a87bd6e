"""``python -m embedstore``, and the command ``embedstore``: the command line, whose Ctrl-C is quiet from the start."""


def main() -> None:
    """Load the command line and run it."""
    try:
        from embedstore.cli import main as command
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    command(prog_name="embedstore")


if __name__ == "__main__":
    main()
