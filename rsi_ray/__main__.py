"""The command line, where it is not installed: `python -m rsi_ray`."""

from rsi_ray.cli import main

main()
