"""`python -m ltgc` is the command `ltgc`."""

from ltgc.cli import main

if __name__ == "__main__":
    main()
