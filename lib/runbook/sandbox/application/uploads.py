"""The upload route: a row, a presigned URL, a job for the worker, and the transcoder's webhook that ends it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from runbook.sandbox.application.backend import Backend
from runbook.sandbox.application.http1 import Request, Response, answer

JOB = "transcode"

_BEGIN = (
    """INSERT INTO content VALUES (%s, %s, %s, 'UPLOADING', NULL, timezone('UTC', now()), timezone('UTC', now()))"""
)
_END = """UPDATE content SET status = %s, "mediaUrl" = %s, "updatedAt" = timezone('UTC', now())
          WHERE id = %s AND status IN ('UPLOADING', 'PROCESSING')"""
_OWNER = 'SELECT "creatorId" FROM content WHERE id = %s'


@dataclass
class Refused(Exception):
    """An upload that is not taken."""

    status: int
    message: str


async def begin(backend: Backend, request: Request) -> Response:
    """``{title, size}`` → ``{id, url}``: a row, and where the browser may put the file."""
    given = request.json()
    creator, size, limit = request.headers.get("x-user", ""), int(given["size"]), backend.stage.upload_limit_bytes
    if size > limit:
        raise Refused(413, f"PayloadTooLarge: file of {size} bytes from {creator} exceeds the limit of {limit} bytes")
    identity = f"upload-{secrets.token_hex(6)}"
    await backend.rows(_BEGIN, identity, creator, str(given["title"]))
    backend.log.info("upload %s begun by %s, %s bytes", identity, creator, size)
    return answer(201, {"id": identity, "url": backend.presign("put_object", key_of(identity))})


async def complete(backend: Backend, request: Request) -> Response:
    """The browser says that the file is in the bucket: a job for the worker."""
    from redis.exceptions import RedisError

    identity = request.path.split("/")[3]
    rows = await backend.rows(_OWNER, identity)
    if not rows:
        return answer(404, {"error": "no such upload"})
    data = {
        "contentId": identity,
        "creatorId": rows[0][0],
        "url": backend.presign("get_object", key_of(identity)),
    }
    try:
        await backend.enqueue(JOB, data)
    except RedisError as error:
        raise Refused(500, f"{type(error).__name__}: {error}") from None
    return answer(202, {"id": identity})


async def failed(backend: Backend, request: Request) -> Response:
    """The browser says that it could not put the file."""
    identity = request.path.split("/")[3]
    backend.log.error("upload %s failed in the browser: %s", identity, request.json().get("reason"))
    await backend.rows(_END, "FAILED", None, identity)
    return Response(status=204)


async def webhook(backend: Backend, request: Request) -> Response:
    """Mux says that a video is ready, or that it cannot be one."""
    if not backend.webhook_is_genuine(request.headers.get("mux-signature", ""), request.body):
        return answer(401, {"error": "signature"})
    event = request.json()
    asset = event.get("data", {})
    identity = str(asset.get("passthrough") or "")
    if event.get("type") == "video.asset.ready":
        await backend.rows(_END, "READY", f"https://stream.mux.com/{asset.get('id')}.m3u8", identity)
    elif event.get("type") == "video.asset.errored":
        messages = "; ".join((asset.get("errors") or {}).get("messages") or [])
        backend.log.error("upload %s failed at the transcoder: %s", identity, messages)
        await backend.rows(_END, "FAILED", None, identity)
    return Response(status=204)


def key_of(identity: str) -> str:
    """Where in the bucket an upload lies."""
    return f"uploads/{identity}.mp4"
