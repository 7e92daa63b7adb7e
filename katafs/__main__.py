"""``python -m katafs``."""

from katafs.cli import main

if __name__ == "__main__":
    main(prog_name="katafs")
