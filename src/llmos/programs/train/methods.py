"""Which weights are learned: the base's, or a few that are added to it by PEFT."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llmos.errors import InvalidRequest, PluginError
from llmos.programs.train.models import new_weights
from llmos.programs.train.recipe import MERGED, Method, Objective, Recipe
from llmos.programs.train.work import Work

TASKS = {
    Objective.CLASSIFY: "SEQ_CLS",
    Objective.REGRESS: "SEQ_CLS",
    Objective.REWARD: "SEQ_CLS",
    Objective.TAG: "TOKEN_CLS",
    Objective.QA: "QUESTION_ANS",
    Objective.SEQ2SEQ: "SEQ_2_SEQ_LM",
    Objective.DENOISE: "SEQ_2_SEQ_LM",
    Objective.EMBED: "FEATURE_EXTRACTION",
    Objective.MASKED: "FEATURE_EXTRACTION",
}
"""In PEFT's words; causal language models otherwise, nothing for images and sounds."""

HEADS = ("classifier", "score", "qa_outputs", "pooler")
"""Layers that are new with a task, and so are learned whatever else is."""


def load_peft() -> Any:
    """PEFT. Raises PluginError."""
    try:
        import peft
    except ImportError:
        raise PluginError("this method needs an extra: pip install 'llmos[train]'") from None
    return peft


def apply_method(recipe: Recipe, work: Work, total_steps: int) -> None:
    """Freeze and add. Raises InvalidRequest for a method that the model has no place for."""
    method = recipe.method
    if method is Method.FULL:
        return
    if method is Method.HEAD:
        _freeze_all_but_heads(work.model)
    elif method is Method.BOTTLENECK:
        from llmos.programs.train.bottleneck import add_bottlenecks

        add_bottlenecks(work.model, recipe.adapter.rank)
        _learn_heads(work.model)
    else:
        work.model = _wrap(recipe, work, total_steps)
    if not any(p.requires_grad for p in work.model.parameters()):
        raise InvalidRequest(f"method {method} leaves nothing to learn", param="recipe.method")


def _freeze_all_but_heads(model: Any) -> None:
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    if not _learn_heads(model):
        raise InvalidRequest(
            "method head learns what was added on top, and nothing was", param="recipe.method"
        )


def _learn_heads(model: Any) -> int:
    """And what the base had no weights for: whatever else a head is made of. How many weights."""
    heads = [m for name, m in model.named_modules() if name.split(".")[-1] in HEADS]
    new = new_weights(model)
    learned = [p for module in heads for p in module.parameters()]
    learned += [p for name, p in model.named_parameters() if name in new]
    for parameter in learned:
        parameter.requires_grad_(True)
    return len(learned)


def _wrap(recipe: Recipe, work: Work, total_steps: int) -> Any:
    peft = load_peft()
    task: str | None = TASKS.get(recipe.objective, "CAUSAL_LM")
    if recipe.objective in (Objective.IMAGES, Objective.SOUNDS):
        task = None
    config = CONFIGS[recipe.method](peft, recipe, task, total_steps)
    model = work.model
    if recipe.method is Method.QLORA:
        model = peft.prepare_model_for_kbit_training(
            model, use_gradient_checkpointing=recipe.training.gradient_checkpointing
        )
    try:
        return peft.get_peft_model(model, config)
    except ValueError as error:
        raise InvalidRequest(
            f"method {recipe.method}: {error}", param="recipe.adapter.targets"
        ) from None


def _lora(peft: Any, recipe: Recipe, task: str | None, total_steps: int) -> Any:
    adapter = recipe.adapter
    return peft.LoraConfig(
        task_type=task,
        r=adapter.rank,
        lora_alpha=adapter.alpha or 2 * adapter.rank,
        lora_dropout=adapter.dropout,
        target_modules=adapter.targets or "all-linear",
        modules_to_save=None if task in ("SEQ_CLS", "TOKEN_CLS") else _heads(recipe),
        use_dora=recipe.method is Method.DORA,
    )


def _heads(recipe: Recipe) -> list[str] | None:
    if recipe.objective is Objective.QA:
        return ["qa_outputs"]
    return ["classifier"] if recipe.objective in (Objective.IMAGES, Objective.SOUNDS) else None


def _adalora(peft: Any, recipe: Recipe, task: str | None, total_steps: int) -> Any:
    """Ranks begin half again as large, and have moved when two thirds of the steps are done."""
    adapter = recipe.adapter
    return peft.AdaLoraConfig(
        task_type=task,
        target_r=adapter.rank,
        init_r=max(adapter.rank + 1, round(1.5 * adapter.rank)),
        lora_alpha=adapter.alpha or 2 * adapter.rank,
        lora_dropout=adapter.dropout,
        target_modules=adapter.targets or "all-linear",
        modules_to_save=None if task in ("SEQ_CLS", "TOKEN_CLS") else _heads(recipe),
        tinit=total_steps // 10,
        tfinal=total_steps // 3,
        deltaT=max(1, total_steps // 100),
        total_step=total_steps,
    )


def _ia3(peft: Any, recipe: Recipe, task: str | None, total_steps: int) -> Any:
    targets = recipe.adapter.targets or None
    return peft.IA3Config(
        task_type=task,
        target_modules=targets,
        feedforward_modules=None if targets is None else [],
    )


def _prefix(peft: Any, recipe: Recipe, task: str | None, total_steps: int) -> Any:
    return peft.PrefixTuningConfig(task_type=task, num_virtual_tokens=recipe.adapter.tokens)


def _prompt(peft: Any, recipe: Recipe, task: str | None, total_steps: int) -> Any:
    return peft.PromptTuningConfig(task_type=task, num_virtual_tokens=recipe.adapter.tokens)


def _p_tuning(peft: Any, recipe: Recipe, task: str | None, total_steps: int) -> Any:
    return peft.PromptEncoderConfig(
        task_type=task,
        num_virtual_tokens=recipe.adapter.tokens,
        encoder_hidden_size=max(16, 8 * recipe.adapter.rank),
    )


CONFIGS: dict[Method, Callable[[Any, Recipe, str | None, int], Any]] = {
    Method.LORA: _lora,
    Method.DORA: _lora,
    Method.QLORA: _lora,
    Method.ADALORA: _adalora,
    Method.IA3: _ia3,
    Method.PREFIX: _prefix,
    Method.PROMPT: _prompt,
    Method.P_TUNING: _p_tuning,
}


def reallocate(model: Any, step: int) -> None:
    """AdaLoRA's ranks move here, between the gradients and their end: nobody else does it."""
    model.base_model.update_and_allocate(step)


def allocator_state(model: Any) -> dict[str, Any] | None:
    """What AdaLoRA decides by, for a checkpoint."""
    allocator = getattr(getattr(model, "base_model", None), "rankallocator", None)
    if allocator is None:
        return None
    names = ("ipt", "exp_avg_ipt", "exp_avg_unc")
    state: dict[str, Any] = {name: dict(getattr(allocator, name)) for name in names}
    config = model.peft_config[model.active_adapter]
    pattern = config.rank_pattern
    state["rank_pattern"] = None if pattern is None else {k: list(v) for k, v in pattern.items()}
    return state


def set_allocator_state(model: Any, state: dict[str, Any] | None) -> None:
    """As `allocator_state` told."""
    if state is None:
        return
    allocator = model.base_model.rankallocator
    for name in ("ipt", "exp_avg_ipt", "exp_avg_unc"):
        setattr(allocator, name, dict(state[name]))
    model.peft_config[model.active_adapter].rank_pattern = state["rank_pattern"]


def merge(recipe: Recipe, work: Work) -> None:
    """Make what was added part of the base: only where `is_apart` says it is to be."""
    if recipe.method in MERGED:
        work.model = work.model.merge_and_unload()
