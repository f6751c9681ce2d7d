"""The lowest layer, which imports no other part of headrace: checks, errors, warnings, texts, progress bars, files."""
