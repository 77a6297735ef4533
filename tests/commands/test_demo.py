"""How the demo takes a signal, whatever it was doing at that moment."""

import contextlib
import os
import signal

import pytest

from ingestor.commands.demo import _ENDING, Demo, _Signals, _signals_end_it, _Told


@pytest.mark.parametrize("number", _ENDING)
def test_a_signal_that_strikes_where_its_exception_is_lost_ends_the_demo_all_the_same(
    number: signal.Signals,
) -> None:
    """As in a finalizer, whose exceptions the interpreter drops."""
    signals = _Signals()
    demo = Demo([], 1.0, 0.0, None, signals.check)
    with _signals_end_it(signals):
        with contextlib.suppress(_Told):
            os.kill(os.getpid(), number)
        with pytest.raises(_Told):
            demo._pause(0.0)
