"""A student of speech, whose teacher and student are given the spectral envelope and the pitch."""
