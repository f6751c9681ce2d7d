"""Densities with few parameters, with which fits begin and with which trained flows are compared."""
