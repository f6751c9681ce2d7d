"""Fixtures and settings for all tests."""

import pytest
from hypothesis import settings

import headrace as hr
from cases import DTYPES

# The same examples on every run and machine, and no files left behind: a failure is then a change of the code.
settings.register_profile("headrace", derandomize=True, database=None, deadline=None, max_examples=200)
settings.load_profile("headrace")


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param


@pytest.fixture
def set_threads():
    """``headrace.set_num_threads``, undone after the test."""
    before = hr.get_num_threads()
    yield hr.set_num_threads
    hr.set_num_threads(before)
