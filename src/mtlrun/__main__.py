"""`python -m mtlrun` is `mtlrun`."""

from mtlrun.cli.main import main

if __name__ == "__main__":
    main()
