"""One message to Discord by the webhook of the settings; nobody is mentioned, and the webhook's URL is in no message.

Source: contracts, section 6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

from runbook.actions.attempts import left_alone, made_by, only_target, short_digest, tried
from runbook.actions.http_acting import ActingApi, Declined
from runbook.actions.kinds import Kind, Said
from runbook.actions.plan import Draft, Effect, Order, Plan, Refused, Target
from runbook.connectors.discord import CONTENT, escaped, units
from runbook.connectors.http import segment
from runbook.result import Precondition

if TYPE_CHECKING:
    from runbook.settings import Settings


class Post(Kind):
    """``discord.post``: one message to the channel of the webhook."""

    may_be_ordered = True
    called = "Post a message to Discord"
    said: ClassVar[Mapping[str, Said]] = {"content": Said(means="the message", needed=True)}

    def draft(self, order: Order) -> Draft:
        """See :meth:`Kind.draft`."""
        content = "\n".join(escaped(line) for line in str(only_target(order).get("content") or "").splitlines()).strip()
        if not content:
            raise Refused("it does not say what to post: content is needed")
        if units(content) > CONTENT:
            raise Refused(f"the message has {units(content)} characters, and Discord takes {CONTENT}")
        webhook = _Webhook(self.settings)
        identity = webhook.identity()
        target = Target(
            # Another message to the same channel is no second one of this.
            name=f"{identity['channel']}/{short_digest(content)}", identity=identity,
            shown=f"webhook {webhook.name} to channel {identity['channel']}", change=f"posted there: {content}",
            after=content,
        )  # fmt: skip
        return Draft(
            targets=[target],
            preconditions=(
                Precondition(label="the webhook is there, and leads to the same channel", holds=True),
                Precondition(label="nobody is mentioned by it", holds=True),
            ),
            risks=("whoever reads the channel has read it, also when it is deleted again",),
            undo="the message is deleted, unless it has been edited since",
        )

    def apply(self, plan: Plan) -> list[Effect]:
        """See :meth:`Kind.apply`."""
        (target,) = plan.draft.targets
        webhook = _Webhook(self.settings)
        if webhook.identity() != dict(target.identity):
            return [left_alone(target.name, "the webhook leads elsewhere by now")]
        return [tried(target.name, "it was posted", lambda: webhook.post(str(target.after)))]

    def holds(self, plan: Plan, effects: Sequence[Effect]) -> tuple[bool | None, str]:
        """See :meth:`Kind.holds`. A webhook finds a message by its id alone."""
        (target,) = plan.draft.targets
        made = made_by(effects, target.name)
        if not made:
            return None, "the message's id is not known"
        content = _Webhook(self.settings).content(made)
        return content == target.after, f"message {made} is {'not there' if content is None else 'there'}"

    def undo(self, plan: Plan, effects: Sequence[Effect]) -> list[Effect]:
        """See :meth:`Kind.undo`."""
        (target,) = plan.draft.targets
        made = made_by(effects, target.name)
        if not made:
            raise Refused("the message's id is not known", remedy="Delete it by hand in the channel")
        webhook = _Webhook(self.settings)
        content = webhook.content(made)
        if content != target.after:
            return [left_alone(target.name, "the message is gone" if content is None else "the message was edited")]
        return [tried(target.name, f"message {made} was deleted", lambda: webhook.delete(made))]


class _Webhook:
    """The webhook of the settings; its path is its password."""

    def __init__(self, settings: Settings) -> None:
        secret = settings.discord.webhook_url
        url = secret.get_secret_value() if secret else ""
        parts = urlsplit(url)
        if url and (parts.scheme not in ("http", "https") or not parts.netloc):
            raise Refused("discord.webhook_url is no http(s) URL", remedy="Correct it")
        self._path = parts.path.rstrip("/")
        self._thread = {name: value for name, value in parse_qsl(parts.query) if name == "thread_id"}
        self._api = ActingApi(
            "Discord", f"{parts.scheme}://{parts.netloc}", secrets=[url, self._path.rpartition("/")[2]],
            lacking="" if url else "discord.webhook_url",
        )  # fmt: skip
        self.name = ""

    def identity(self) -> dict[str, Any]:
        """The webhook's id and where it leads now."""
        found = self._api.look_object(self._path)
        self.name = str(found.get("name") or "")
        where = self._thread.get("thread_id") or found.get("channel_id")
        return {"webhook": str(found.get("id")), "channel": str(where)}

    def post(self, content: str) -> str:
        """Post a message and wait until it is saved; its id."""
        body = {"content": content, "allowed_mentions": {"parse": []}}
        said = self._api.send("POST", self._path, body, {"wait": "true", **self._thread})
        return str(said.get("id") or "") if isinstance(said, dict) else ""

    def content(self, number: str) -> str | None:
        """What a message says; ``None`` when it is not there."""
        try:
            found = self._api.look_object(f"{self._path}/messages/{segment(number)}", self._thread)
        except Declined as error:
            if error.status == 404:
                return None
            raise
        return str(found.get("content"))

    def delete(self, number: str) -> None:
        """Delete a message."""
        self._api.send("DELETE", f"{self._path}/messages/{segment(number)}", params=self._thread)
