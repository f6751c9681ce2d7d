"""The lowest storey, which imports no other: checks, errors, warnings, texts, progress bars, objects of files."""
