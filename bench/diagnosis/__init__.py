"""Findings of diagnoses: grades of misfits of known size, and default fits that pass."""
