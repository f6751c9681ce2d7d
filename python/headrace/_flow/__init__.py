"""Flows, named flows with default settings, their transforms, bases and programs."""
