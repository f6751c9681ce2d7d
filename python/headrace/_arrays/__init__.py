"""Arrays in and out: the only room that knows array frameworks."""
