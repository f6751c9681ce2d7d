"""Flows, ready-made ones, their transforms, bases and programs."""
