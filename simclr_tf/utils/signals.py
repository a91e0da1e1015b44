"""Signals that are noticed at once, while the main thread is in an operation of TensorFlow."""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def watch_signals(on_signal: Callable[[int, bool], None]) -> Iterator[None]:
    """Calls `on_signal`, in a thread, with each SIGTERM and SIGINT and whether it is a repetition.

    Python calls signal handlers only in the main thread, and only between two operations of C code.
    A signal needs such a handler to be noticed here. Outer watchers notice repetitions only.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    outer = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)

    def watch():
        seen = set()
        while numbers := reader.recv(1):
            if numbers[0] in STOP_SIGNALS:
                with contextlib.suppress(OSError):  # of a closed standard output
                    on_signal(numbers[0], numbers[0] in seen)
            if numbers[0] in seen and outer >= 0:
                os.write(outer, numbers)
            seen.add(numbers[0])

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(outer)
        writer.close()
        thread.join()
        reader.close()


@contextlib.contextmanager
def catch_signals(on_signal: Callable[[int, bool], None]) -> Iterator[list[int]]:
    """Records SIGTERM and SIGINT in a list, and watches them.

    Repeating a signal invokes its previous handler.
    """
    received: list[int] = []

    def handler(number, frame):
        received.append(number)
        signal.signal(number, previous[number])

    previous = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    with watch_signals(on_signal):
        for number in previous:
            signal.signal(number, handler)
        try:
            yield received
        finally:
            for number, previous_handler in previous.items():
                signal.signal(number, previous_handler)


def signal_name(number: int) -> str:
    """Returns the name of a signal in messages."""
    return "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
