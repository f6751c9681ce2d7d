"""The nonparametric flow of Tabak and Vanden-Eijnden: ascents of the log-likelihood, step by step."""
