"""`python -m jobwire`: the same as the command `jobwire`."""

from .commands import main

main()
