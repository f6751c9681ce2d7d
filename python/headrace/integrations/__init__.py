"""Flows for other packages, a module for each package: ``from headrace.integrations import sbi``."""
