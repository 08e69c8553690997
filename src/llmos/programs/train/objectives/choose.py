"""Which module an objective is."""

from __future__ import annotations

import importlib

from llmos.programs.train.recipe import Objective
from llmos.programs.train.work import Setting, Work

MODULES = {
    Objective.CLASSIFY: "classify",
    Objective.REGRESS: "regress",
    Objective.TAG: "tag",
    Objective.QA: "qa",
    Objective.MASKED: "language",
    Objective.CAUSAL: "language",
    Objective.DENOISE: "language",
    Objective.SEQ2SEQ: "seq2seq",
    Objective.EMBED: "embed",
    Objective.IMAGES: "images",
    Objective.SOUNDS: "sounds",
    Objective.SFT: "prefer",
    Objective.DPO: "prefer",
    Objective.KTO: "prefer",
    Objective.REWARD: "prefer",
    Objective.GRPO: "prefer",
}


def prepare(setting: Setting) -> Work:
    """Raises InvalidRequest for data that do not suit it."""
    name = MODULES[setting.recipe.objective]
    module = importlib.import_module(f"llmos.programs.train.objectives.{name}")
    work: Work = module.prepare(setting)
    return work
