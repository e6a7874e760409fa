"""An S3, STS, IAM, ECS and autoscaling to try the AWS connectors on: moto's server in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

from tests.support import free_port, wait_until

REGION = "us-east-1"
ALLOW_ALL = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


class Moto:
    """One running server. Until :meth:`enforce` everybody may do everything."""

    def __init__(self, url: str) -> None:
        self.url = url

    def client(self, service: str, key: str = "anybody", secret: str = "anything") -> Any:
        import boto3

        return boto3.client(
            service, region_name=REGION, endpoint_url=self.url, aws_access_key_id=key, aws_secret_access_key=secret
        )

    def enforce(self, *, on: bool = True) -> None:
        """Whether credentials and policies count from now on."""
        body = b"0" if on else b"inf"
        plain = {"Content-Type": "text/plain"}
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/moto-api/reset-auth", body, plain)) as answer:
            answer.read()

    def user(self, name: str, *statements: dict[str, Any]) -> tuple[str, str]:
        """Key and secret of a user who may do everything but for what ``statements`` say."""
        iam = self.client("iam")
        iam.create_user(UserName=name)
        policy = {**ALLOW_ALL, "Statement": [*ALLOW_ALL["Statement"], *statements]}
        iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=json.dumps(policy))
        made = iam.create_access_key(UserName=name)["AccessKey"]
        return made["AccessKeyId"], made["SecretAccessKey"]


@contextlib.contextmanager
def running() -> Iterator[Moto]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        env={**os.environ, "MOTO_DISABLE_GLOBAL_CORS": "true"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    moto = Moto(f"http://127.0.0.1:{port}")

    def answers() -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{moto.url}/moto-api/data.json", timeout=5):
            return True
        return False

    try:
        wait_until(answers, seconds=60, every=0.2, what="moto")
        yield moto
    finally:
        process.kill()
        process.wait()
