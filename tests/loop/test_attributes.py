# SPDX-License-Identifier: MIT
"""The loop object's attributes."""
import asyncio
import socket

import pytest

import pyconc


async def use(loop):
    loop.call_later(10, print).cancel()
    await loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
    await loop.run_in_executor(None, int)
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    server.close()


def test_instance_dictionary_stays_empty():
    """An attribute in it makes every method of the loop slower to find."""
    loop = pyconc.new_event_loop()
    try:
        loop.set_exception_handler(print)
        loop.run_until_complete(use(loop))
        assert not vars(loop)
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def test_any_attribute_can_be_set():
    loop = pyconc.new_event_loop()
    try:
        loop.mine = 1
        loop.slow_callback_duration = 0.5
        assert (loop.mine, loop.slow_callback_duration) == (1, 0.5)
    finally:
        loop.close()


def test_only_methods_of_a_base_are_adopted():
    with pytest.raises(TypeError, match="append"):
        pyconc.Loop._adopt(list.append)
    with pytest.raises(TypeError, match="<function"):
        pyconc.Loop._adopt(use)
