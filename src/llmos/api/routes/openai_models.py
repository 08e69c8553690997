"""GET /v1/models and /v1/models/{id}: OpenAI's view of the registry."""

from __future__ import annotations

from typing import Any

from llmos.abi.registry import ModelVersion
from llmos.abi.syscall import ListModels, Model, ModelList, RemoveModel, ShowModel
from llmos.api.call import Call
from llmos.api.routes.spec import RouteSpec
from llmos.api.routes.unary import ask, ref_of
from llmos.errors import Conflict
from llmos.shapes.answers import ModelCard, ModelCards, ModelDeleted


async def list_cards(call: Call) -> None:
    """The newest version of a name goes by the name alone, older ones by `name:version`."""
    models = (await ask(call, ListModels(), ModelList)).models
    newest: dict[str, ModelVersion] = {}
    for model in models:
        known = newest.get(model.name)
        if known is None or (model.created_ns, model.model_id) > (known.created_ns, known.model_id):
            newest[model.name] = model
    cards = [_card(m, m.name if newest[m.name] is m else m.ref) for m in models]
    await call.send_json({"object": "list", "data": sorted(cards, key=lambda c: c["id"])})


async def show_card(call: Call) -> None:
    """One model, under the id it was asked for."""
    ref = ref_of(call)
    await call.send_json(_card((await ask(call, ShowModel(ref), Model)).model, ref))


async def delete_model(call: Call) -> None:
    """Forget a version; its requests finish first."""
    ref = ref_of(call)
    await ask(call, RemoveModel(ref), Model)
    await call.send_json({"id": ref, "object": "model", "deleted": True})


def _card(model: ModelVersion, card_id: str) -> dict[str, Any]:
    return {
        "id": card_id,
        "object": "model",
        "created": model.created_ns // 1_000_000_000,
        "owned_by": "llmos",
        "llmos": {
            "ref": model.ref,
            "driver": model.driver,
            "architecture": model.architecture,
            "context_length": model.context_length,
            "num_parameters": model.num_parameters,
            "has_chat_template": model.has_chat_template,
            "license": model.license,
        },
    }


ROUTES = [
    RouteSpec(
        "DELETE",
        "/v1/models/{ref:path}",
        delete_model,
        "Forget a model.",
        answer=ModelDeleted,
        raises=(Conflict,),
    ),
    RouteSpec("GET", "/v1/models", list_cards, "Models that can be asked.", answer=ModelCards),
    RouteSpec("GET", "/v1/models/{ref:path}", show_card, "One model.", answer=ModelCard),
]
