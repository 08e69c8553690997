"""The one error tree. Every failure a caller can see is one of these classes.

    LLMOSError
    ├── UserError             the caller must change something
    │   ├── InvalidRequest            invalid_request
    │   │   ├── UnknownParameter      unknown_parameter
    │   │   ├── UnsupportedParameter  unsupported_parameter
    │   │   └── ContextLengthExceeded context_length_exceeded
    │   ├── AuthenticationFailed      invalid_api_key
    │   ├── PermissionDenied          permission_denied
    │   ├── NotFound                  not_found
    │   │   └── ModelNotFound         model_not_found
    │   ├── Conflict                  conflict
    │   │   └── IdempotencyMismatch   idempotency_mismatch
    │   ├── OffsetLost                offset_lost
    │   ├── PayloadTooLarge           payload_too_large
    │   ├── ModelRejected             model_rejected
    │   ├── ReaderStalled             reader_stalled
    │   └── Cancelled                 cancelled
    ├── CapacityError         nothing is wrong, there is no room now
    │   ├── QueueFull                 queue_full
    │   ├── QuotaExceeded             quota_exceeded
    │   ├── ModelTooLarge             model_too_large
    │   ├── OutOfMemory               out_of_memory
    │   ├── DeadlineExceeded          deadline_exceeded
    │   └── ShuttingDown              shutting_down
    ├── WorkerError           a worker or the engine inside it failed
    │   ├── WorkerLost                worker_lost
    │   ├── LoadFailed                load_failed
    │   ├── EngineFailed              engine_failed
    │   ├── RemoteFailed              remote_failed
    │   ├── AnswerRejected            answer_rejected
    │   ├── ProgramFailed             program_failed
    │   ├── SnapshotRejected          snapshot_rejected
    │   └── ProtocolViolation         protocol_violation
    ├── ServerUnreachable             server_unreachable   (raised by the sdk, never sent)
    ├── ConfigError                   config_error
    ├── PluginError                   plugin_error
    └── StorageError                  storage_error
        ├── DiskFull                  disk_full
        ├── DigestMismatch            digest_mismatch
        └── HomeLocked                home_locked

`code` is stable and is what crosses a process or the network; the class is rebuilt from it on the
other side by `from_info`. This module knows nothing of HTTP: the status table lives in `shapes`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec


class ErrorInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error as it crosses a process. `retry_after_s` is in seconds; `details` is JSON-able."""

    code: str
    message: str
    param: str | None = None
    retryable: bool = False
    retry_after_s: float | None = None
    details: dict[str, Any] = {}


class LLMOSError(Exception):
    """Root of the tree. `code` is its wire name; `retryable`: trying again may work."""

    code: ClassVar[str] = "internal_error"
    retryable: bool = False

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.details = details or {}

    def to_info(self) -> ErrorInfo:
        """The wire form; `from_info` is its inverse."""
        return ErrorInfo(
            self.code, self.message, self.param, self.retryable, self.retry_after_s, self.details
        )


class UserError(LLMOSError):
    """The caller must change something before it can work."""

    code = "user_error"


class InvalidRequest(UserError):
    """A field is missing, malformed or out of range; `param` names it."""

    code = "invalid_request"


class UnknownParameter(InvalidRequest):
    """A field nobody documents; the message names near matches."""

    code = "unknown_parameter"


class UnsupportedParameter(InvalidRequest):
    """A documented field that this version, model or driver does not honour."""

    code = "unsupported_parameter"


class ContextLengthExceeded(InvalidRequest):
    """Prompt plus requested tokens do not fit the model's context."""

    code = "context_length_exceeded"


class AuthenticationFailed(UserError):
    """No key, or one that is not known."""

    code = "invalid_api_key"


class PermissionDenied(UserError):
    """A known principal without the right to this action."""

    code = "permission_denied"


class NotFound(UserError):
    """The named thing does not exist (or the principal may not know that it does)."""

    code = "not_found"


class ModelNotFound(NotFound):
    """No such model or version; `details["near"]` lists near matches."""

    code = "model_not_found"


class Conflict(UserError):
    """The thing exists already, or is in a state that forbids this."""

    code = "conflict"


class IdempotencyMismatch(Conflict):
    """The `Idempotency-Key` was used before, for something else."""

    code = "idempotency_mismatch"


class OffsetLost(UserError):
    """What follows this offset of a stream is no longer kept (or never was)."""

    code = "offset_lost"


class PayloadTooLarge(UserError):
    """The body is over the configured limit."""

    code = "payload_too_large"


class ModelRejected(UserError):
    """The files are not a model we can serve; the message says which file and why."""

    code = "model_rejected"


class ReaderStalled(UserError):
    """The client stopped reading its stream for longer than the bound."""

    code = "reader_stalled"


class Cancelled(UserError):
    """Someone ended it before it began: its client left, or an operator."""

    code = "cancelled"


class CapacityError(LLMOSError):
    """Nothing is wrong with the request, there is no room for it now."""

    code = "capacity_error"
    retryable = True


class QueueFull(CapacityError):
    """A bounded queue is full; `retry_after_s` estimates when it will not be."""

    code = "queue_full"


class QuotaExceeded(CapacityError):
    """The principal or tenant has used up what it may use."""

    code = "quota_exceeded"


class ModelTooLarge(CapacityError):
    """The model cannot fit this machine's budget even alone; the message has the arithmetic."""

    code = "model_too_large"
    retryable = False


class OutOfMemory(CapacityError):
    """There is no memory for it now, and nobody could make room in time; or the system has killed
    a worker for want of memory."""

    code = "out_of_memory"


class DeadlineExceeded(CapacityError):
    """The request's own deadline cannot be or was not met; sent again it would have another one."""

    code = "deadline_exceeded"
    retryable = False


class ShuttingDown(CapacityError):
    """The server is draining."""

    code = "shutting_down"


class WorkerError(LLMOSError):
    """A worker process, or the engine inside it, failed."""

    code = "worker_error"
    retryable = True


class WorkerLost(WorkerError):
    """The worker process died or was stopped while it carried the request."""

    code = "worker_lost"


class LoadFailed(WorkerError):
    """A replica could not be loaded."""

    code = "load_failed"


class EngineFailed(WorkerError):
    """The engine raised while it worked on the request."""

    code = "engine_failed"


class RemoteFailed(WorkerError):
    """A server elsewhere did not answer, or not to the end.

    `details["cause"]` is `unreachable`, `timeout`, `busy`, `refused`, `broken` or `filtered`, and
    `details["host"]` who. Nothing of the answer had come where `details["begun"]` is false.
    """

    code = "remote_failed"


class AnswerRejected(WorkerError):
    """A model answered, but not with what was asked for: no label, no JSON, not by the schema."""

    code = "answer_rejected"
    retryable = False


class ProgramFailed(WorkerError):
    """A job's program raised something of its own, hung, or took more than its job may have."""

    code = "program_failed"
    retryable = False


class SnapshotRejected(WorkerError):
    """A request cannot go on from this snapshot: it is damaged, or of something else.

    `details["reason"]` is `missing`, `damaged`, `format` or `differs`; of the last one
    `details["differs"]` names what does. Another replica may take it where this one does not.
    """

    code = "snapshot_rejected"
    retryable = False


class ProtocolViolation(WorkerError):
    """A peer sent something the ABI does not allow, or speaks another ABI version."""

    code = "protocol_violation"
    retryable = False


class ServerUnreachable(LLMOSError):
    """No server answers, or it went away before its answer was complete. Raised by the sdk."""

    code = "server_unreachable"
    retryable = True


class ConfigError(LLMOSError):
    """A setting is unknown, malformed or contradicts another."""

    code = "config_error"


class PluginError(LLMOSError):
    """An entry string does not resolve, or an extra is missing; the message names the install."""

    code = "plugin_error"


class StorageError(LLMOSError):
    """The database or the disk refused."""

    code = "storage_error"


class DiskFull(StorageError):
    """No space left where the write had to go."""

    code = "disk_full"
    retryable = True


class DigestMismatch(StorageError):
    """Bytes are not the ones their digest names."""

    code = "digest_mismatch"


class HomeLocked(StorageError):
    """Another server holds this LLMOS_HOME."""

    code = "home_locked"


def _tree(cls: type[LLMOSError]) -> list[type[LLMOSError]]:
    return [cls, *(found for sub in cls.__subclasses__() for found in _tree(sub))]


ERRORS: dict[str, type[LLMOSError]] = {cls.code: cls for cls in _tree(LLMOSError)}
"""Every class of the tree by its code."""


def from_info(info: ErrorInfo) -> LLMOSError:
    """Rebuild the error a peer sent; an unknown code becomes a plain `LLMOSError`."""
    error = ERRORS.get(info.code, LLMOSError)(
        info.message, param=info.param, retry_after_s=info.retry_after_s, details=info.details
    )
    error.retryable = info.retryable
    return error
