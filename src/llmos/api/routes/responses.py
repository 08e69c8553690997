"""/v1/responses: answers that are kept, continued, made in the background and polled."""

from __future__ import annotations

from typing import Any

import msgspec

from llmos.abi.ids import new_id
from llmos.abi.jobs import ENDED, INFER, Idempotency, JobRecord, JobState
from llmos.abi.program import Generate
from llmos.abi.syscall_jobs import CancelJob, JobReply, RemoveJob, ShowJob, SubmitJob
from llmos.api.body import read_json
from llmos.api.call import Call
from llmos.api.idempotency import IDEMPOTENCY_KEY, idempotency_of
from llmos.api.media import with_images
from llmos.api.parameters import Count, Flag, Parameter, Text, Word, Words
from llmos.api.query import Query
from llmos.api.response_frames import NOTHING_SEEN
from llmos.api.routes.respond import answer_ended, answer_live, stream_stored
from llmos.api.routes.spec import RouteSpec
from llmos.api.routes.unary import ask, ref_of
from llmos.api.sight import as_it_is_read
from llmos.errors import (
    Conflict,
    DiskFull,
    InvalidRequest,
    NotFound,
    OffsetLost,
    UnsupportedParameter,
    UserError,
)
from llmos.shapes.files import page_object
from llmos.shapes.items import Item, has_images, read_items
from llmos.shapes.names import RESPONSE_PREFIX, job_of
from llmos.shapes.response_object import (
    InputItems,
    ResponseDeleted,
    ResponseEvent,
    ResponseObject,
    response_object,
    stored_facts,
)
from llmos.shapes.responses import (
    ResponsesBody,
    conversation_of,
    items_of,
    read_response,
    stored_spec,
)
from llmos.shapes.table import RESPONSES_INCLUDE

INCLUDE = tuple(
    Words(name, "Parts of items to add", RESPONSES_INCLUDE) for name in ("include", "include[]")
)
OBFUSCATION = Flag("include_obfuscation", "Changes nothing: no event is padded")
STARTING_AFTER = Count("starting_after", "Events after this number", NOTHING_SEEN, 2**31, 0)
STREAM = Flag("stream", "Server-sent events, from the first or from `starting_after`")
SHOW_QUERY = (*INCLUDE, OBFUSCATION, STARTING_AFTER, STREAM)
AFTER = Text("after", "The last id of the page before")
LIMIT = Count("limit", "At most so many", 20, 100)
ORDER = Word("order", "By age, newest or oldest first", ("desc", "asc"))
ITEMS_QUERY = (*INCLUDE, AFTER, LIMIT, ORDER)


async def create_response(call: Call) -> None:
    """An answer, whole or streamed. What is stored is on disk before the client is told so."""
    raw = await read_json(call)
    body = read_response(raw, call.edge.config.max_messages)
    items = await _conversation(call, body)
    generate = body.to_generate(items)
    key = idempotency_of(call, raw) if body.store else None
    if has_images(items):
        for name, given in (
            ("background", body.background),
            ("Idempotency-Key", key),
            ("llmos.resume_s", body.llmos.resume_s),
        ):
            if given:  # its files are gone with the connection
                raise UnsupportedParameter("No such answer is about images.", param=name)
    try:
        await _answer(call, body, items, generate, key)
    except UserError as error:
        raise body.in_its_words(error, items) from None


async def _answer(
    call: Call,
    body: ResponsesBody,
    items: list[Item],
    generate: Generate,
    key: Idempotency | None,
) -> None:
    if key is None and not body.background:
        asked = await as_it_is_read(call, generate) if has_images(items) else generate
        async with with_images(call, asked) as wish:
            await answer_live(call, body, items, wish)
        return
    spec = stored_spec(
        body,
        items,
        call.principal.max_class,
        generate=msgspec.to_builtins(generate),
        stream=body.stream,
    )
    job = (await ask(call, SubmitJob(spec, key), JobReply)).job
    if body.stream:
        await stream_stored(call, job)
    elif body.background:
        await call.send_json(response_object(stored_facts(job)))
    else:
        await answer_ended(call, job)


async def _conversation(call: Call, body: ResponsesBody) -> list[Item]:
    """What came before, then what is new. Raises NotFound, Conflict, InvalidRequest."""
    items = read_items(body.input, lambda: new_id("msg"))
    if body.previous_response_id is None:
        return items
    before = await _stored(call, body.previous_response_id, "previous_response_id")
    if before.state is not JobState.SUCCEEDED:
        raise Conflict(
            f"{body.previous_response_id} has no answer to go on from: it is {before.state}.",
            param="previous_response_id",
        )
    items = conversation_of(before) + items
    if len(items) > call.edge.config.max_messages:
        raise InvalidRequest(
            f"The conversation has more than {call.edge.config.max_messages} items.",
            param="previous_response_id",
        )
    return items


async def show_response(call: Call) -> None:
    """As it is now; with `stream` its events, after number `starting_after`."""
    query = _query(call, SHOW_QUERY)
    query[OBFUSCATION]  # padding; nothing here is padded
    after = query[STARTING_AFTER]
    job = await _response_of(call)
    if query[STREAM]:
        await stream_stored(call, job, after)
    else:
        await call.send_json(response_object(stored_facts(job)))


async def delete_response(call: Call) -> None:
    """Forget it. Responses that went on from it have their own copy of the conversation."""
    job = await _response_of(call)
    await ask(call, RemoveJob(job.job_id), JobReply)
    await call.send_json({"id": ref_of(call, "response_id"), "object": "response", "deleted": True})


async def cancel_response(call: Call) -> None:
    """End one in the background; one that has ended stays as it is."""
    job = await _response_of(call)
    if not job.spec.inputs["request"]["background"]:
        raise InvalidRequest("Only a response in the background is cancelled.", param="response_id")
    if job.state not in ENDED:
        job = (await ask(call, CancelJob(job.job_id, "cancelled by its owner"), JobReply)).job
    await call.send_json(response_object(stored_facts(job)))


async def list_input_items(call: Call) -> None:
    """All that the answer was made from, newest first: earlier turns included."""
    query = _query(call, ITEMS_QUERY)
    limit = query[LIMIT]
    after, order = query[AFTER], query[ORDER]
    items = items_of(await _response_of(call))
    if order != "asc":
        items = items[::-1]
    if after is not None:
        at = next((i for i, item in enumerate(items) if item["id"] == after), None)
        if at is None:
            raise NotFound(f"No such item: {after[:64]}.", param="after")
        items = items[at + 1 :]
    await call.send_json(page_object(items[:limit], len(items) > limit))


def _query(call: Call, known: tuple[Parameter[Any], ...]) -> Query:
    query = Query(call, known)
    for parameter in INCLUDE:
        query[parameter]  # nothing here has them, but a word nobody knows is refused
    return query


async def _response_of(call: Call) -> JobRecord:
    return await _stored(call, ref_of(call, "response_id"), "response_id")


async def _stored(call: Call, name: str, param: str) -> JobRecord:
    """The tenant's own, and no other kind of job. Raises NotFound."""
    missing = NotFound(f"No such response: {name[:64]}.", param=param)
    try:
        job = (await ask(call, ShowJob(job_of(name, RESPONSE_PREFIX)), JobReply)).job
    except NotFound:
        raise missing from None
    is_own = job.principal.tenant_id == call.principal.tenant_id
    if job.spec.program != INFER or not is_own or "request" not in job.spec.inputs:
        raise missing
    return job


_ONE = "/v1/responses/{response_id}"
EVENTS = {"response.*": ResponseEvent, "error": ResponseEvent}

ROUTES = [
    RouteSpec(
        "POST",
        "/v1/responses",
        create_response,
        "Answer, and keep the answer.",
        body=ResponsesBody,
        answer=ResponseObject,
        headers=(IDEMPOTENCY_KEY,),
        events=EVENTS,
        raises=(NotFound, Conflict, DiskFull),
    ),
    RouteSpec(
        "GET",
        _ONE + "/input_items",
        list_input_items,
        "What a response was made from.",
        answer=InputItems,
        query=ITEMS_QUERY,
    ),
    RouteSpec(
        "POST",
        _ONE + "/cancel",
        cancel_response,
        "End a response in the background.",
        answer=ResponseObject,
        raises=(InvalidRequest, Conflict),
    ),
    RouteSpec(
        "GET",
        _ONE,
        show_response,
        "A response.",
        answer=ResponseObject,
        query=SHOW_QUERY,
        events=EVENTS,
        raises=(OffsetLost,),
    ),
    RouteSpec("DELETE", _ONE, delete_response, "Forget a response.", answer=ResponseDeleted),
]
