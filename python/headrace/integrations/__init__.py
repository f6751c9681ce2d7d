"""headrace inside of other packages, each by name: ``from headrace.integrations import sbi``."""
