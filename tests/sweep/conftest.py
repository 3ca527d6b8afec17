from __future__ import annotations

import os
import threading
from unittest import mock

import pytest


@pytest.fixture(scope="session")
def served():
    """S3's own protocol on the loopback: the address of a bucket, which processes that start now find by themselves; None without moto."""
    try:
        import s3fs
        from moto.s3.responses import S3Response
        from moto.server import ThreadedMotoServer
    except ImportError:
        yield None
        return
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    told = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }  # fmt: skip
    put, one_at_a_time = S3Response.put_object, threading.Lock()

    def put_object(self, *args, **kwargs):
        with one_at_a_time:  # moto looks whether there is one, and then writes; S3 does both at once
            return put(self, *args, **kwargs)

    with mock.patch.dict(os.environ, told), mock.patch.object(S3Response, "put_object", put_object):
        s3fs.S3FileSystem().mkdir("night")
        yield "s3://night"
        s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.fixture
def s3(served):
    if served is None:
        pytest.skip("moto and s3fs are not installed")
    return served
