"""``python -m trioroom`` is the same as the ``trioroom`` command."""

from trioroom.cli import main

if __name__ == "__main__":
    main()
