"""The table of system calls: message, handler, the right it needs, on what."""

from __future__ import annotations

from llmos.abi import syscall as sc
from llmos.abi.principal import Action, Resource
from llmos.kernel import sys_infer, sys_keys, sys_models, sys_processes, sys_streams, sys_system
from llmos.kernel.syscall import Entry

_ANY_MODEL = Resource("model")
_SYSTEM = Resource("system")
_KEYS = Resource("key")


def _process(body: object) -> Resource:
    """Whose it is, is only known to the handler, which authorizes again."""
    return Resource("process")


SYSCALLS: dict[type, Entry] = {
    sc.Infer: Entry(sys_infer.infer, Action.INFER, lambda b: Resource("model", b.model)),
    sc.ListModels: Entry(sys_models.list_models, Action.READ_MODELS, lambda b: _ANY_MODEL),
    sc.ShowModel: Entry(
        sys_models.show_model, Action.READ_MODELS, lambda b: Resource("model", b.ref)
    ),
    sc.PullModel: Entry(sys_models.pull_model, Action.WRITE_MODELS, lambda b: _ANY_MODEL),
    sc.RemoveModel: Entry(
        sys_models.remove_model, Action.WRITE_MODELS, lambda b: Resource("model", b.ref)
    ),
    sc.LoadModel: Entry(
        sys_models.load_model, Action.WRITE_MODELS, lambda b: Resource("model", b.ref)
    ),
    sc.UnloadModel: Entry(
        sys_models.unload_model, Action.WRITE_MODELS, lambda b: Resource("model", b.ref)
    ),
    sc.ListProcesses: Entry(sys_processes.list_processes, Action.READ_PROCESSES, _process),
    sc.ShowProcess: Entry(sys_processes.show_process, Action.READ_PROCESSES, _process),
    sc.WaitProcess: Entry(sys_processes.wait_process, Action.READ_PROCESSES, _process),
    sc.NiceProcess: Entry(sys_processes.nice_process, Action.READ_PROCESSES, _process),
    sc.KillProcess: Entry(sys_processes.kill_process, Action.READ_PROCESSES, _process),
    sc.AttachStream: Entry(sys_streams.attach_stream, Action.INFER, _process),
    sc.ListReplicas: Entry(sys_system.list_replicas, Action.READ_SYSTEM, lambda b: _SYSTEM),
    sc.ListWorkers: Entry(sys_system.list_workers, Action.READ_SYSTEM, lambda b: _SYSTEM),
    sc.Status: Entry(sys_system.status, Action.READ_SYSTEM, lambda b: _SYSTEM),
    sc.Health: Entry(sys_system.health, None, lambda b: _SYSTEM),
    sc.AddKey: Entry(sys_keys.add_key, Action.ADMIN_KEYS, lambda b: _KEYS),
    sc.ListKeys: Entry(sys_keys.list_keys, Action.ADMIN_KEYS, lambda b: _KEYS),
    sc.RevokeKey: Entry(sys_keys.revoke_key, Action.ADMIN_KEYS, lambda b: _KEYS),
}
"""Every body of `abi.syscall.Body`, exactly once (a test says so)."""
