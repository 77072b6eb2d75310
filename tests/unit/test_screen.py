"""Ctrl-C: once is a wish, twice ends the session where it waits and nowhere else."""

import asyncio
import os
import signal

import pytest

from fundarb.apps.screen import on_interrupt

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="signals of a loop are a matter of POSIX")


async def busy(done):
    """Never wait for anything but the next turn of the loop, as a reader of many frames does."""
    try:
        while True:
            await asyncio.sleep(0)
    finally:
        done.append("the reader was let go")


async def session(signals, done):
    reader, asked = asyncio.create_task(busy(done)), []
    try:
        with on_interrupt(asked.append):
            for number in signals:
                os.kill(os.getpid(), number)
                await asyncio.sleep(0.01)
            return asked
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        done.append("the session was left")


@pytest.mark.parametrize("signals", [[signal.SIGINT], [signal.SIGTERM], [signal.SIGTERM, signal.SIGTERM]])
def test_a_wish_to_end_is_told_and_interrupts_nothing(signals):
    done = []
    asked = asyncio.run(session(signals, done))
    assert set(asked) == {"stopped by hand"} and done == ["the reader was let go", "the session was left"]


@pytest.mark.parametrize("signals", [[signal.SIGINT] * 2, [signal.SIGTERM, signal.SIGINT, signal.SIGINT]])
def test_the_second_interrupt_ends_the_session_and_everything_lets_go_in_order(signals):
    done = []
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(session(signals, done))
    assert done == ["the reader was let go", "the session was left"]


def test_a_session_that_is_cancelled_by_its_own_process_is_no_interrupt():
    async def cancelled():
        with on_interrupt(lambda reason: None):
            asyncio.current_task().cancel()
            await asyncio.sleep(0)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancelled())
