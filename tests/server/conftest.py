"""One real server for all server tests."""

import pytest

from host_server import HostServer


@pytest.fixture(scope="session")
def server():
    with HostServer() as running:
        yield running
