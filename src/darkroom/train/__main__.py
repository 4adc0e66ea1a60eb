"""`python -m darkroom.train`: the same as `darkroom train`."""

from darkroom.train.pocket.cli import run

if __name__ == "__main__":
    raise SystemExit(run())
