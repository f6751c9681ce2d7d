"""The command line, and modules that only the command line uses."""
