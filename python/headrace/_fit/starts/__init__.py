"""Densities of few parameters, with which fits begin and with which others are compared."""
