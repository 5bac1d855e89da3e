"""``python -m numbabn.cli``."""

from . import main

main()
