"""Diagnosis of a fitted density: tests of latent rows and of draws, reports with pictures, and recalibration."""

from headrace.diagnosis.recalibration import recalibrate
from headrace.diagnosis.result import Diagnosis
from headrace.diagnosis.run import diagnose
from headrace.diagnosis.sequences import SequenceDiagnosis, diagnose_sequences

__all__ = ["Diagnosis", "SequenceDiagnosis", "diagnose", "diagnose_sequences", "recalibrate"]
