"""A fit while it runs: its rows, its optimiser, and how it chooses. `headrace.training` says what a fit is."""
