"""The lowest layer of headrace, which imports no other layer: checks, errors, warnings, texts, progress bars, files."""
