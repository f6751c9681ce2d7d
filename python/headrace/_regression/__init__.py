"""Regression by conditional densities of responses: `headrace.sklearn.FlowRegressor`."""
