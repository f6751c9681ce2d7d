"""A Ctrl-C at a moment that a test chooses."""

import pkgutil
import signal

__all__ = ["ctrl_c"]


def ctrl_c(monkeypatch, owner, name, when=lambda *given: True):
    """Send a real SIGINT at the start of the first call of a function whose arguments `when` accepts; yield the list of
    accepted calls.

    `owner`: a module or class, or the name of one in the form of `pkgutil.resolve_name`.
    """
    target = pkgutil.resolve_name(owner.rstrip(":")) if isinstance(owner, str) else owner
    whole, calls = getattr(target, name), []

    def interrupted(*given, **more):
        if not calls and when(*given):
            calls.append(name)
            signal.raise_signal(signal.SIGINT)
        return whole(*given, **more)

    monkeypatch.setattr(target, name, interrupted)
    return calls
