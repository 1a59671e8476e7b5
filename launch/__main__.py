"""``python -m launch``."""

from launch.cli import app

if __name__ == "__main__":
    app(prog_name="python -m launch")
