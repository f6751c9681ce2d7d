"""A student of speech, teacher and student given the same envelope and pitch."""
