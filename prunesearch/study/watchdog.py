"""What a worker leaves beside itself when it starts, so that it never outlives its driver."""

from __future__ import annotations

import os
import selectors
import signal


def watch(driver: int, *others: int) -> None:
    """Fork a process that kills this one, and all that it will start, when the driver is gone.

    A thread could not: an evaluator may hold the interpreter's lock, or be stopped. To be called before anything is
    imported that starts threads.

    Args:
        driver: Descriptor of a pipe that the system closes when the driver ends, however it does.
        *others: Descriptors that the watchdog must not keep open, as that would hide the end of this process.
    """
    parent = _descriptor_of(os.getppid())
    listening, alive = os.pipe()  # `alive` is closed by the system when this process and its forks have ended
    if os.fork() > 0:
        for descriptor in (listening, *parent):
            os.close(descriptor)
        return
    try:
        for descriptor in (alive, *others):
            os.close(descriptor)
        with selectors.DefaultSelector() as selector:
            for descriptor in (driver, listening, *parent):
                selector.register(descriptor, selectors.EVENT_READ)
            ended = {key.fd for key, _ in selector.select()}
        if ended != {listening}:
            os.killpg(os.getpgrp(), signal.SIGKILL)
    finally:
        os._exit(0)


def _descriptor_of(process: int) -> list[int]:
    """What can be read once a process has ended, where the system has such a thing.

    Of the pipe, a fork of the driver that lives on may have the other end.
    """
    try:
        return [os.pidfd_open(process)]
    except (AttributeError, OSError):
        return []
