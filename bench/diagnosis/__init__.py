"""What diagnoses find: grades of misfits of known size, and which default fits pass."""
