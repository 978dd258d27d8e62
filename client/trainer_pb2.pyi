from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class Task(_message.Message):
    __slots__ = ("kind", "round", "schema", "model", "split", "settings", "study", "accepted", "keep", "received_schema", "received", "site", "code")
    KIND_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    STUDY_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    kind: str
    round: int
    schema: str
    model: bytes
    split: str
    settings: str
    study: str
    accepted: int
    keep: _containers.RepeatedScalarFieldContainer[int]
    received_schema: str
    received: bytes
    site: str
    code: str
    def __init__(self, kind: _Optional[str] = ..., round: _Optional[int] = ..., schema: _Optional[str] = ..., model: _Optional[bytes] = ..., split: _Optional[str] = ..., settings: _Optional[str] = ..., study: _Optional[str] = ..., accepted: _Optional[int] = ..., keep: _Optional[_Iterable[int]] = ..., received_schema: _Optional[str] = ..., received: _Optional[bytes] = ..., site: _Optional[str] = ..., code: _Optional[str] = ...) -> None: ...

class Reply(_message.Message):
    __slots__ = ("site", "round", "schema", "model", "scalars")
    class ScalarsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    SITE_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SCALARS_FIELD_NUMBER: _ClassVar[int]
    site: str
    round: int
    schema: str
    model: bytes
    scalars: _containers.ScalarMap[str, float]
    def __init__(self, site: _Optional[str] = ..., round: _Optional[int] = ..., schema: _Optional[str] = ..., model: _Optional[bytes] = ..., scalars: _Optional[_Mapping[str, float]] = ...) -> None: ...
