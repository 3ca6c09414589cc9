import signal
import threading

import pytest

from model import stopping
from model.stopping import SIGNALS, Stopped, StopSignals

send = signal.raise_signal


@pytest.fixture
def ended(monkeypatch):
    """Signals that would have ended the process."""
    found = []
    monkeypatch.setattr(signal, "raise_signal", found.append)
    return found


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_and_a_later_one_ends_the_process(ended, monkeypatch, number):
    before = [signal.getsignal(each) for each in SIGNALS]
    with StopSignals() as stop:
        assert not stop.agreed()
        send(number)
        assert stop.agreed() and stop.number == number
        send(number)  # torchrun sends on what a scheduler has sent already
        assert not ended
        monkeypatch.setattr(stop, "_until", 0.0)
        send(number)
        assert ended == [number] and signal.getsignal(number) is signal.SIG_DFL
    assert [signal.getsignal(each) for each in SIGNALS] == before
    assert stopping.REPEAT_SECONDS < 5


def test_what_changes_nothing_is_abandoned():
    with StopSignals() as stop:
        assert stop.unless_told(lambda: 3) == 3
        after = []

        def work():
            try:
                send(signal.SIGTERM)
            except Exception:  # as a library may have it
                pass
            after.append("too late")

        assert stop.unless_told(work) is None and not after
        assert stop.unless_told(lambda: after.append("not begun")) is None and not after
        assert stop.agreed()


def test_what_must_be_finished_is():
    with StopSignals() as stop:
        for count in range(2):
            send(signal.SIGINT)
        assert stop.agreed() and stop.number == signal.SIGINT


def test_a_signal_that_comes_while_the_processes_agree_is_not_lost(monkeypatch):
    def before_all_have_answered(value):
        if not value:
            send(signal.SIGTERM)
        return value

    monkeypatch.setattr(stopping, "highest", before_all_have_answered)
    with StopSignals() as stop:
        assert not stop.agreed()
        assert stop.agreed() and stop.number == signal.SIGTERM


def test_other_threads_note_nothing():
    found = []

    def run():
        with StopSignals() as stop:
            found.append(stop.agreed())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [False]


def test_what_is_said():
    stopped = Stopped(3, 7, signal.SIGTERM)
    assert str(stopped) == "stopped by SIGTERM, 3 steps of 7 are saved; go on with --resume"
    assert stopped.number == 15
