"""`python -m gradwire.cli`, the same as the command `gradwire`."""

from .app import app

if __name__ == "__main__":
    app(prog_name="gradwire")
