"""Conditional densities of responses, as regression: `headrace.sklearn.FlowRegressor`."""
