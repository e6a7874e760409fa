"""An S3 with IAM enforced: moto's server in a process of its own, one bucket, and a key for each who uses it.

moto lacks three things that browsers meet, and they stand in front of it here: presigned URLs are checked although IAM
is enforced, a preflight is answered as S3 answers it, and a bucket can throttle. It must never listen beyond loopback.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote
from xml.sax.saxutils import escape

from runbook.sandbox import processes
from runbook.sandbox.stack import REGION, STORAGE_CONTROL_PATH

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_ACCOUNT = "123456789012"

_MAY: Mapping[str, tuple[str, ...]] = {
    "administrator": ("s3:*", "iam:*"),
    "app": ("s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"),
    # What the diagnosis looks at, and the canary that it writes and takes away again.
    "runbook": (
        "s3:ListBucket",
        "s3:ListBucketMultipartUploads",
        "s3:HeadBucket",
        "s3:GetObject",
        "s3:PutObject",
        "s3:DeleteObject",
        "s3:GetBucketLocation",
        "s3:GetBucketPolicy",
        "s3:GetBucketPolicyStatus",
        "s3:GetBucketPublicAccessBlock",
        "s3:GetPublicAccessBlock",
        "s3:GetBucketCORS",
        "s3:GetLifecycleConfiguration",
        "s3:GetBucketLifecycleConfiguration",
        "s3:GetEncryptionConfiguration",
        "s3:GetBucketEncryption",
    ),
}
"""Users of the bucket and what each may do."""

_BROWSERS_MAY = ["GET", "PUT", "HEAD"]


class Front:
    """What stands before moto: presigned URLs, preflights, and a throttle."""

    def __init__(self, inner: WSGIApplication, token: str) -> None:
        self._inner = inner
        self._token = token
        self._throttled = False

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == STORAGE_CONTROL_PATH:
            return self._control(environ, start_response)
        if environ["REQUEST_METHOD"] == "OPTIONS":
            return _preflight(environ, start_response)
        if self._throttled:
            return _error(start_response, "503 Slow Down", "SlowDown", "Please reduce your request rate.")
        query = dict(parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True))
        if "X-Amz-Signature" in query:
            refusal = _sign_in_its_stead(environ, query)
            if refusal is not None:
                return _error(start_response, "403 Forbidden", *refusal)
        return self._inner(environ, start_response)

    def _control(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not hmac.compare_digest(environ.get("HTTP_X_SANDBOX_TOKEN", ""), self._token):
            return _error(start_response, "403 Forbidden", "AccessDenied", "Access Denied")
        from moto.s3.models import s3_backends

        said = json.loads(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
        self._throttled = bool(said.get("throttled", False))
        if "origins" in said:
            rule = {"AllowedMethod": _BROWSERS_MAY, "AllowedOrigin": said["origins"], "AllowedHeader": ["*"]}
            s3_backends[_ACCOUNT]["aws"].put_bucket_cors(said["bucket"], [rule] if said["origins"] else [])
        start_response("204 No Content", [])
        return []


def _error(start_response: StartResponse, status: str, code: str, message: str) -> list[bytes]:
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{code}</Code><Message>{escape(message)}</Message>"
        f"<RequestId>{secrets.token_hex(8).upper()}</RequestId></Error>"
    ).encode()
    start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]


def _preflight(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """The first rule that fits origin and method decides; S3 asks nobody to authenticate here."""
    from moto.s3.models import s3_backends

    name = environ["PATH_INFO"].lstrip("/").partition("/")[0]
    bucket = s3_backends[_ACCOUNT]["aws"].buckets.get(name)
    origin = environ.get("HTTP_ORIGIN", "")
    method = environ.get("HTTP_ACCESS_CONTROL_REQUEST_METHOD", "")
    for rule in bucket.cors if bucket is not None else ():
        methods, origins = _listed(rule.allowed_methods), _listed(rule.allowed_origins)
        if method in methods and ("*" in origins or origin in origins):
            headers = [
                ("Access-Control-Allow-Origin", origin),
                ("Access-Control-Allow-Methods", ", ".join(methods)),
                ("Access-Control-Allow-Headers", environ.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS", "")),
                ("Vary", "Origin, Access-Control-Request-Headers, Access-Control-Request-Method"),
            ]
            start_response("200 OK", [(key, value) for key, value in headers if value])
            return []
    reason = "CORSResponse: This CORS request is not allowed." if bucket and bucket.cors else "CORS is not enabled"
    return _error(start_response, "403 Forbidden", "AccessForbidden", f"{reason} for this bucket.")


def _listed(value: str | list[str]) -> list[str]:
    """moto keeps a single value as it came."""
    return [value] if isinstance(value, str) else value


def _sign_in_its_stead(environ: WSGIEnvironment, query: Mapping[str, str]) -> tuple[str, str] | None:
    """Check a presigned URL; put the same key's signature into the headers, where moto looks for it.

    Returns the refusal (code, message), or ``None`` when moto may see it.
    """
    key_id = query.get("X-Amz-Credential", "").partition("/")[0]
    secret = _secret_of(key_id)
    if secret is None:
        return "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."
    begun = datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    if datetime.now(UTC) > begun + timedelta(seconds=int(query.get("X-Amz-Expires", "0"))):
        return "AccessDenied", "Request has expired"
    if not hmac.compare_digest(_presigned(environ, query, secret), query["X-Amz-Signature"]):
        return "SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided."
    _put_signature_into_headers(environ, key_id, secret)
    return None


def _secret_of(key_id: str) -> str | None:
    from moto.iam.models import iam_backends

    for user in iam_backends[_ACCOUNT]["aws"].list_users("/", None, None):
        for key in user.access_keys:
            if key.access_key_id == key_id:
                return str(key.secret_access_key)
    return None


def _presigned(environ: WSGIEnvironment, query: Mapping[str, str], secret: str) -> str:
    """The signature that a URL presigned with ``secret`` has (AWS Signature Version 4, query parameters)."""
    names = query["X-Amz-SignedHeaders"].split(";")
    headers = "".join(f"{name}:{_header(environ, name).strip()}\n" for name in names)
    encoded = sorted(
        f"{quote(key, safe='-_.~')}={quote(value, safe='-_.~')}"
        for key, value in query.items()
        if key != "X-Amz-Signature"
    )
    path = quote(environ["PATH_INFO"], safe="/-_.~")
    canonical = "\n".join(
        [environ["REQUEST_METHOD"], path, "&".join(encoded), headers, ";".join(names), "UNSIGNED-PAYLOAD"]
    )
    scope = query["X-Amz-Credential"].split("/")[1:]
    to_sign = "\n".join(
        ["AWS4-HMAC-SHA256", query["X-Amz-Date"], "/".join(scope), hashlib.sha256(canonical.encode()).hexdigest()]
    )
    key = f"AWS4{secret}".encode()
    for part in scope:
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, to_sign.encode(), "sha256").hex()


def _header(environ: WSGIEnvironment, name: str) -> str:
    key = name.upper().replace("-", "_")
    return str(environ.get(key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}", ""))


def _put_signature_into_headers(environ: WSGIEnvironment, key_id: str, secret: str) -> None:
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    url = f"http://{environ['HTTP_HOST']}{quote(environ['PATH_INFO'], safe='/-_.~')}"
    request = AWSRequest(method=environ["REQUEST_METHOD"], url=url, headers={"Host": environ["HTTP_HOST"]})
    request.context["payload_signing_enabled"] = False
    S3SigV4Auth(Credentials(key_id, secret), "s3", REGION).add_auth(request)
    for name, value in request.headers.items():
        environ[f"HTTP_{name.upper().replace('-', '_')}"] = value
    environ["QUERY_STRING"] = ""
    for name in ("RAW_URI", "REQUEST_URI"):
        if name in environ:
            environ[name] = environ[name].partition("?")[0]


def _furnish(url: str, bucket: str) -> dict[str, dict[str, str]]:
    """Make the bucket and its users; their keys by user."""
    import boto3

    anybody: dict[str, Any] = {
        "endpoint_url": url,
        "region_name": REGION,
        "aws_access_key_id": "unchecked",
        "aws_secret_access_key": "unchecked",
    }
    iam = boto3.client("iam", **anybody)
    keys = {}
    for user, actions in _MAY.items():
        iam.create_user(UserName=user)
        statement = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
        policy = {"Version": "2012-10-17", "Statement": [statement]}
        iam.put_user_policy(UserName=user, PolicyName="may", PolicyDocument=json.dumps(policy))
        made = iam.create_access_key(UserName=user)["AccessKey"]
        keys[user] = {"access_key_id": made["AccessKeyId"], "secret_access_key": made["SecretAccessKey"]}
    s3 = boto3.client("s3", **anybody)
    s3.create_bucket(Bucket=bucket)
    s3.put_public_access_block(
        Bucket=bucket,
        PublicAccessBlockConfiguration={
            "BlockPublicAcls": True,
            "IgnorePublicAcls": True,
            "BlockPublicPolicy": True,
            "RestrictPublicBuckets": True,
        },
    )
    return keys


def main() -> None:
    """In the child: listen on a free port, make bucket and users, then enforce IAM and say all of it."""
    given = processes.arguments()
    # moto would let every browser in by itself.
    os.environ["MOTO_DISABLE_GLOBAL_CORS"] = "true"
    # boto3 must not find whatever credentials this machine has.
    os.environ |= {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull}
    from moto import settings
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    class QuietHandler(MotoRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_request(self, *_: object) -> None:
            """One line a request would fill the log."""

    dispatch: Callable[..., Any] = DomainDispatcherApplication(create_backend_app)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        port = listener.getsockname()[1]
        server = make_server(
            "127.0.0.1",
            port,
            Front(dispatch, given["token"]),
            threaded=True,
            request_handler=QuietHandler,
            fd=listener.fileno(),
        )
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{port}"
        keys = _furnish(url, given["bucket"])
        settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
        processes.ready(port=port, keys=keys)
        threading.Event().wait()


if __name__ == "__main__":
    main()
