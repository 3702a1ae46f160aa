"""python -m hwdkit."""

from hwdkit.cli import main

if __name__ == "__main__":
    main()
