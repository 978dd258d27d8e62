"""Replies that are announced and not yet whole: a server app is told of a reply when all of it is there, not before.

Flower tells of a reply as soon as it is announced, and whoever then asks for its content waits until that has come or
has not moved for three minutes. A site that is lost in the middle of sending would so hold the whole round up,
also beyond its deadline, and replies that others sent meanwhile would come too late.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from flwr.proto.fleet_pb2 import PushMessagesRequest, PushMessagesResponse
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.supercore.constant import OBJECT_PUSH_SESSION_TTL_SECONDS


@dataclass(eq=False)
class Upload:
    """One site's sending: the messages that it replies to, Flower's session, which objects have not come, and when
    the last one did."""

    asked: frozenset[str]
    session: str = ""
    missing: set[str] = field(default_factory=set)
    moved: float = field(default_factory=time.monotonic)


class Uploads:
    """What is under way. One that has not moved for so long that Flower gives it up is not: Flower then says so."""

    def __init__(self) -> None:
        self._under_way: set[Upload] = set()

    def begin(self, asked: PushMessagesRequest) -> Upload:
        """A site is about to announce replies."""
        upload = Upload(frozenset(message.metadata.reply_to_message_id for message in asked.messages_list))
        self._under_way.add(upload)
        return upload

    def announced(self, upload: Upload, answer: PushMessagesResponse) -> bool:
        """Flower has answered with what is to be sent; whether that is nothing."""
        upload.session, upload.missing = answer.session_id, set(answer.objects_to_push)
        return self._is_whole(upload)

    def drop(self, upload: Upload) -> None:
        """Flower has refused the announcement."""
        self._under_way.discard(upload)

    def brought(self, asked: PushObjectRequest) -> bool:
        """An object has come; whether a reply is whole now."""
        for upload in self._under_way:
            if upload.session and upload.session == asked.session_id:
                upload.missing.discard(asked.object_id)
                upload.moved = time.monotonic()
                return self._is_whole(upload)
        return False

    def whole(self, asked: Iterable[str]) -> list[str]:
        """Of the messages, by id, those to which no reply is under way."""
        given_up = time.monotonic() - OBJECT_PUSH_SESSION_TTL_SECONDS
        self._under_way = {upload for upload in self._under_way if upload.moved > given_up}
        return [key for key in asked if not any(key in upload.asked for upload in self._under_way)]

    def _is_whole(self, upload: Upload) -> bool:
        if not upload.missing:
            self._under_way.discard(upload)
        return not upload.missing
