"""The parts of a running fit: rows, optimiser and choices. `headrace.training` describes a fit."""
