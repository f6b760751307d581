"""`python -m gliner_fast` is the command line."""

from gliner_fast.cli import main

if __name__ == "__main__":
    main()
