"""Arrays in and out: the only folder that depends on array frameworks."""
