"""Estimators for scikit-learn from one list of keywords."""

import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from headrace.sklearn import FitSettings, FlowDensity, FlowSettings

NESTED = {"fit": FitSettings, "settings": FlowSettings}


def estimator(*flow, **keywords):
    """A `FlowDensity` from keywords in one list, even those of the nested settings of its fit and its flow."""
    for nested, kind in NESTED.items():
        inner = {name: keywords.pop(name) for name in [*keywords] if name in kind().get_params()}
        if inner:
            keywords[nested] = kind(**inner)
    return FlowDensity(*flow, **keywords)
