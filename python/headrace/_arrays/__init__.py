"""Arrays of arguments and results; no other folder depends on array frameworks."""
