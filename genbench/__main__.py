"""``python -m genbench`` is the command ``genbench``."""

from genbench.cli import main

if __name__ == "__main__":
    main()
