"""`python -m medtrust` is the `medtrust` command."""

from medtrust.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
