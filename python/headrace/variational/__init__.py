"""Fits to densities that are known but for a factor, and students of flows that sample slowly."""
