"""The ground, which needs nothing of the package: checks, errors, warnings, texts, bars, objects as files see them."""
