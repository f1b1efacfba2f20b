"""`python -m liveness` is the same as `liveness`."""

from liveness.cli import main

main()
