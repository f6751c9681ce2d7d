"""Looking at a fitted density: tests of latent rows and of draws, in numbers, words and pictures."""

from headrace.diagnosis.result import Diagnosis
from headrace.diagnosis.run import diagnose

__all__ = ["Diagnosis", "diagnose"]
