"""The table of system calls: message, handler, the right it needs, on what."""

from __future__ import annotations

from llmos.abi import feedback as fb
from llmos.abi import syscall as sc
from llmos.abi import syscall_jobs as sj
from llmos.abi.principal import Action, Resource
from llmos.kernel import (
    sys_feedback,
    sys_files,
    sys_infer,
    sys_jobs,
    sys_keys,
    sys_memory,
    sys_models,
    sys_processes,
    sys_streams,
    sys_system,
)
from llmos.kernel.syscall import Entry

_ANY_MODEL = Resource("model")
_SYSTEM = Resource("system")
_KEYS = Resource("key")
_FILES = Resource("file")


def _process(body: object) -> Resource:
    """Whose it is, is only known to the handler, which authorizes again."""
    return Resource("process")


def _job(body: object) -> Resource:
    """As `_process`."""
    return Resource("job")


SYSCALLS: dict[type, Entry] = {
    sc.Infer: Entry(sys_infer.infer, Action.INFER, lambda b: Resource("model", b.model)),
    sc.ListModels: Entry(sys_models.list_models, Action.READ_MODELS, lambda b: _ANY_MODEL),
    sc.ShowModel: Entry(
        sys_models.show_model, Action.READ_MODELS, lambda b: Resource("model", b.ref)
    ),
    sc.PullModel: Entry(sys_models.pull_model, Action.WRITE_MODELS, lambda b: _ANY_MODEL),
    sc.QuantizeModel: Entry(
        sys_models.quantize_model, Action.WRITE_MODELS, lambda b: Resource("model", b.ref)
    ),
    sc.RemoveModel: Entry(
        sys_models.remove_model, Action.WRITE_MODELS, lambda b: Resource("model", b.ref)
    ),
    sc.AliasModel: Entry(
        sys_models.alias_model, Action.WRITE_MODELS, lambda b: Resource("model", b.ref)
    ),
    sc.UnaliasModel: Entry(
        sys_models.unalias_model, Action.WRITE_MODELS, lambda b: Resource("model", b.ref)
    ),
    sc.LoadModel: Entry(
        sys_models.load_model, Action.WRITE_MODELS, lambda b: Resource("model", b.ref)
    ),
    sc.UnloadModel: Entry(
        sys_models.unload_model, Action.WRITE_MODELS, lambda b: Resource("model", b.ref)
    ),
    sc.PinModel: Entry(
        sys_models.pin_model, Action.WRITE_MODELS, lambda b: Resource("model", b.ref)
    ),
    sc.ShowMemory: Entry(sys_memory.show_memory, Action.READ_SYSTEM, lambda b: _SYSTEM),
    sc.ListProcesses: Entry(sys_processes.list_processes, Action.READ_PROCESSES, _process),
    sc.ShowProcess: Entry(sys_processes.show_process, Action.READ_PROCESSES, _process),
    sc.WaitProcess: Entry(sys_processes.wait_process, Action.READ_PROCESSES, _process),
    sc.NiceProcess: Entry(sys_processes.nice_process, Action.READ_PROCESSES, _process),
    sc.KillProcess: Entry(sys_processes.kill_process, Action.READ_PROCESSES, _process),
    sc.SuspendProcess: Entry(sys_processes.suspend_process, Action.READ_PROCESSES, _process),
    sc.ResumeProcess: Entry(sys_processes.resume_process, Action.READ_PROCESSES, _process),
    sj.SubmitJob: Entry(sys_jobs.submit_job, Action.SUBMIT_JOBS, _job),
    sj.RecordJob: Entry(sys_jobs.record_job, Action.SUBMIT_JOBS, _job),
    sj.ListJobs: Entry(sys_jobs.list_jobs, Action.READ_PROCESSES, _job),
    sj.ShowJob: Entry(sys_jobs.show_job, Action.READ_PROCESSES, _job),
    sj.ReadJobEvents: Entry(sys_jobs.read_job_events, Action.READ_PROCESSES, _job),
    sj.FollowJob: Entry(sys_jobs.follow_job, Action.READ_PROCESSES, _job),
    sj.CancelJob: Entry(sys_jobs.cancel_job, Action.CONTROL_PROCESSES, _job),
    sj.RetryJob: Entry(sys_jobs.retry_job, Action.SUBMIT_JOBS, _job),
    sj.RemoveJob: Entry(sys_jobs.remove_job, Action.CONTROL_PROCESSES, _job),
    sj.ListPrograms: Entry(sys_jobs.list_programs, Action.READ_PROCESSES, _job),
    sj.AddSchedule: Entry(sys_jobs.add_schedule, Action.SUBMIT_JOBS, _job),
    sj.ListSchedules: Entry(sys_jobs.list_schedules, Action.READ_PROCESSES, _job),
    sj.RemoveSchedule: Entry(sys_jobs.remove_schedule, Action.SUBMIT_JOBS, _job),
    sj.AddFile: Entry(sys_files.add_file, Action.WRITE_FILES, lambda b: _FILES),
    sj.ListFiles: Entry(sys_files.list_files, Action.READ_FILES, lambda b: _FILES),
    sj.ShowFile: Entry(sys_files.show_file, Action.READ_FILES, lambda b: _FILES),
    sj.RemoveFile: Entry(sys_files.remove_file, Action.WRITE_FILES, lambda b: _FILES),
    sj.OpenFile: Entry(sys_files.open_file, Action.READ_FILES, lambda b: _FILES),
    sj.BackUp: Entry(sys_files.back_up, Action.BACK_UP, lambda b: _SYSTEM),
    sj.CollectBlobs: Entry(sys_files.collect_blobs, Action.BACK_UP, lambda b: _SYSTEM),
    sj.ShowDisk: Entry(sys_files.show_disk, Action.READ_SYSTEM, lambda b: _SYSTEM),
    fb.AddFeedback: Entry(sys_feedback.add_feedback, Action.INFER, _process),
    fb.ListFeedback: Entry(sys_feedback.list_feedback, Action.READ_PROCESSES, _process),
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
