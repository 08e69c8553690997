"""Texts made one token at a time by a decoder that reads an encoder's states.

Rows that begin together make a group and go on together, a token in each step; who has ended leaves
it, and its place in the caches is given up. Several groups take turns, so that who comes later need
not wait for the longest of those before. The likeliest token is taken, under the rules of the
folder's `generation_config.json` (Transformers' own processors), or the likeliest text is looked
for (`beams`).

Shapes: B rows, L tokens read, T tokens made, V vocabulary.
"""

# ruff: noqa: N803, N806, N815 (tensor names carry their shape)
from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import transformers
from transformers.generation import logits_process as rules
from transformers.modeling_outputs import BaseModelOutput

from llmos.drivers.encoder.beams import Beams, Search
from llmos.drivers.encoder.kinds import Head
from llmos.drivers.encoder.limits import LIMITS
from llmos.drivers.encoder.load import Loaded
from llmos.drivers.encoder.work import Work
from llmos.errors import ModelRejected
from llmos.weights.itemscratch import DECODED_TOKENS

Rule = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Of tokens so far and their scores: what is left of them."""

UNSAID_TOKENS = 256
"""Of a text where neither the request nor the folder says how long it may be."""


@dataclasses.dataclass(slots=True, eq=False)
class Writing:
    """One row of a group. `forced` are tokens that it begins with, whatever is likely; of `tokens`,
    that many are not the model's own, and `num_given` of them are a prompt that was sent. `most`:
    tokens in all; `is_cut`: it would have gone on."""

    work: Work
    forced: list[int]
    most: int
    num_given: int = 0
    tokens: list[int] = dataclasses.field(default_factory=list)
    is_cut: bool = False


@dataclasses.dataclass(slots=True, eq=False)
class Group:
    """`ids_BT` are all tokens of the decoder so far; `states` and `mask_BL` are the encoder's.

    With `beams`, every row has so many places, one beside the other, in all of these.
    """

    rows: list[Writing]
    states: Any
    mask_BL: Any
    ids_BT: torch.Tensor
    cache: Any
    beams: list[Beams] = dataclasses.field(default_factory=list)

    @property
    def is_paused(self) -> bool:
        return all(row.work.request.is_paused for row in self.rows)


class Decoder:
    """Of one loaded model with a decoder."""

    def __init__(self, loaded: Loaded) -> None:
        """Raises ModelRejected."""
        self._loaded = loaded
        self._model = loaded.model
        self._is_captioner = loaded.purpose.head is Head.CAPTIONER
        writer = loaded.model.text_decoder if self._is_captioner else loaded.model
        self.config = config = _config_of(loaded.model, writer)
        own, eos = loaded.config, config.eos_token_id
        start = config.decoder_start_token_id
        if start is None:
            start = getattr(own, "decoder_start_token_id", None)
        if self._is_captioner:  # its ends are not those that its configuration calls so
            own = loaded.config.text_config
            start, eos = own.bos_token_id, own.sep_token_id
        elif loaded.purpose.head is Head.IMAGE_DECODER:
            own = loaded.config.decoder
        if not isinstance(start, int):
            raise ModelRejected("config.json: decoder_start_token_id is missing")
        self.start: int = start
        self.eos = frozenset(eos if isinstance(eos, list) else [] if eos is None else [eos])
        self._most = int(getattr(own, "max_position_embeddings", 0) or 0)
        last = config.forced_eos_token_id
        self._last = last[0] if isinstance(last, list) else last
        self._rules = _rules(config, sorted(self.eos), loaded.device)
        self._search = Search(
            1.0 if config.length_penalty is None else float(config.length_penalty),
            config.early_stopping or False,
        )

    def most_tokens(self, asked: int | None, num_given: int = 0) -> int:
        """That one text may have, a prompt of `num_given` among them. `asked` None: as the folder
        says."""
        new = asked or self.config.max_new_tokens
        if not new and self.config.max_length:
            new = max(1, self.config.max_length - 1 - num_given)  # which counts a prompt as well
        most = num_given + min(new or UNSAID_TOKENS, LIMITS.new_tokens)
        return max(1, min(most, self._most - 1) if self._most else most)

    def most_rows(self, length: int, num_beams: int) -> int:
        """That a group of texts of about this length may have for its share of what is reserved."""
        share = DECODED_TOKENS // LIMITS.groups
        room = share // (length + self.most_tokens(None)) // num_beams
        return max(1, min(LIMITS.batch_rows, room))

    def begin(self, works: Sequence[Work], states: Any, mask_BL: Any) -> Group:
        """A group whose encoder has run. All have the same number of beams."""
        rows = [self._row(work) for work in works]
        count = num_beams_of(works[0])
        beams = [Beams(count, self._search, row.num_given) for row in rows] if count > 1 else []
        if count > 1:
            states = states.repeat_interleave(count, dim=0)
            mask_BL = None if mask_BL is None else mask_BL.repeat_interleave(count, dim=0)
        ids_BT = torch.full((len(states), 1), self.start, dtype=torch.long, device=states.device)
        cache = transformers.EncoderDecoderCache(
            transformers.DynamicCache(), transformers.DynamicCache()
        )
        return Group(rows, states, mask_BL, ids_BT, cache, beams)

    def _row(self, work: Work) -> Writing:
        params = work.request.params
        about = work.open.item.about or {}
        prompt = about.get("prompt", ())
        forced = prompt or about.get("forced")
        if forced is None:
            bos = self.config.forced_bos_token_id
            forced = [bos] if isinstance(bos, int) else []
        most = self.most_tokens(params["max_new_tokens"], len(prompt))
        return Writing(work, list(forced), max(most, len(forced) + 1), len(prompt))

    def advance(self, group: Group) -> list[Writing]:
        """One token for every row; those that have ended, which are in the group no more."""
        scores_BV = self._forward(group)[:, -1].float()
        if group.beams:
            return self._advance_beams(group, scores_BV)
        drawn = self._ruled(group, scores_BV).argmax(dim=-1).tolist()
        for i, row in enumerate(group.rows):
            made = len(row.tokens)
            row.tokens.append(row.forced[made] if made < len(row.forced) else drawn[i])
            if made == row.most - 1 and self._last is not None:
                row.is_cut = row.tokens[-1] not in self.eos
                row.tokens[-1] = self._last
        added = [[row.tokens[-1]] for row in group.rows]
        column_B1 = torch.tensor(added, dtype=torch.long, device=group.ids_BT.device)
        group.ids_BT = torch.cat([group.ids_BT, column_B1], dim=1)
        ended = [row for row in group.rows if self._is_over(row)]
        if ended:
            self.leave(group, ended)
        return ended

    def _forward(self, group: Group) -> torch.Tensor:
        """Logits after the newest tokens."""
        newest_B1 = group.ids_BT[:, -1:]
        if self._is_captioner:
            out = self._model.text_decoder(
                input_ids=newest_B1,
                encoder_hidden_states=group.states,
                past_key_values=group.cache,
                use_cache=True,
            )
        else:
            out = self._model(
                encoder_outputs=BaseModelOutput(last_hidden_state=group.states),
                attention_mask=group.mask_BL,
                decoder_input_ids=newest_B1,
                past_key_values=group.cache,
                use_cache=True,
            )
        logits: torch.Tensor = out.logits
        return logits

    def _ruled(self, group: Group, scores_BV: torch.Tensor) -> torch.Tensor:
        places = len(group.ids_BT) // len(group.rows)
        for rule in self._rules:
            if isinstance(rule, _FromOwn):
                own = (row for row in group.rows for _ in range(places))
                rule.begins = [rule.begin_of(row) for row in own]
            scores_BV = rule(group.ids_BT, scores_BV)
        return scores_BV

    def _advance_beams(self, group: Group, logits_BV: torch.Tensor) -> list[Writing]:
        """As `advance`: the beams of every row take one step."""
        count = group.beams[0].count
        scores_BV = self._ruled(group, logits_BV.log_softmax(dim=-1))
        places: list[int] = []
        newest: list[int] = []
        ended: list[Writing] = []
        for i, (row, beams) in enumerate(zip(group.rows, group.beams, strict=True)):
            made = beams.num_made
            forced = row.forced[made] if made < len(row.forced) else None
            if made == row.most - 1 and self._last is not None:
                forced, row.is_cut = self._last, True
            scores_KV = scores_BV[i * count : (i + 1) * count]
            beams.step(scores_KV, forced, self.eos, row.most)
            if beams.is_over:
                row.tokens = beams.best
                row.is_cut = row.is_cut and len(row.tokens) == row.most
                ended.append(row)
            # one that is over keeps its places until it leaves
            places += [i * count + at for at in beams.sources]
            newest += beams.newest
        chosen = torch.tensor(places, device=group.ids_BT.device)
        column_B1 = torch.tensor(newest, device=group.ids_BT.device)[:, None]
        group.ids_BT = torch.cat([group.ids_BT[chosen], column_B1], dim=1)
        group.cache.self_attention_cache.batch_select_indices(chosen)
        if ended:
            self.leave(group, ended)
        return ended

    def _is_over(self, row: Writing) -> bool:
        is_own = len(row.tokens) > len(row.forced)
        return (is_own and row.tokens[-1] in self.eos) or len(row.tokens) >= row.most

    def leave(self, group: Group, gone: Sequence[Writing]) -> None:
        """Give up the places of rows that have ended."""
        away = set(map(id, gone))
        kept = [i for i, row in enumerate(group.rows) if id(row) not in away]
        group.rows = [group.rows[i] for i in kept]
        if group.beams:
            count = group.beams[0].count
            group.beams = [group.beams[i] for i in kept]
            kept = [i * count + at for i in kept for at in range(count)]
        if not kept:
            group.cache = None
            return
        places = torch.tensor(kept, device=group.ids_BT.device)
        group.ids_BT = group.ids_BT[places]
        group.states = group.states[places]
        if group.mask_BL is not None:
            group.mask_BL = group.mask_BL[places]
        if group.cache.get_seq_length():
            group.cache.batch_select_indices(places)


def _config_of(model: Any, writer: Any) -> Any:
    """A folder's, with what it leaves unsaid of the part that writes: as where a captioner's is
    handed to its `generate`."""
    config = copy.deepcopy(model.generation_config)
    if writer is not model:
        config.update(**writer.generation_config.to_dict(), defaults_only=True)
    return config


def num_beams_of(work: Work) -> int:
    """That were asked for; 1 of a kind that knows none."""
    return work.request.params.get("num_beams") or 1


class _FromOwn:
    """A rule of Transformers' that counts from where a row's own tokens begin, `make` of that
    place. `begins`, those of the rows, are set for each step. `of_prompt`: what is forced without
    being a prompt counts as the model's own."""

    def __init__(self, make: Callable[[int], Rule], *, of_prompt: bool) -> None:
        self._make = functools.cache(make)
        self._of_prompt = of_prompt
        self.begins: list[int] = []

    def begin_of(self, row: Writing) -> int:
        """The place of its first own token."""
        return 1 + (row.num_given if self._of_prompt else len(row.forced))

    def __call__(self, ids_BT: torch.Tensor, scores_BV: torch.Tensor) -> torch.Tensor:
        found = set(self.begins)
        if len(found) == 1:
            return self._make(self.begins[0])(ids_BT, scores_BV)
        scores_BV = scores_BV.clone()
        for begin in found:
            at = [i for i, one in enumerate(self.begins) if one == begin]
            scores_BV[at] = self._make(begin)(ids_BT[at], scores_BV[at])
        return scores_BV


def _rules(config: Any, eos: list[int], device: torch.device) -> list[Any]:
    """What a folder forbids, in the order in which Transformers asks."""
    found: list[Any] = []
    there = str(device)
    if config.repetition_penalty not in (None, 1.0):
        found.append(rules.RepetitionPenaltyLogitsProcessor(config.repetition_penalty))
    if config.no_repeat_ngram_size:
        found.append(rules.NoRepeatNGramLogitsProcessor(config.no_repeat_ngram_size))
    if config.min_length and eos and not config.min_new_tokens:  # which takes its place
        found.append(rules.MinLengthLogitsProcessor(config.min_length, eos, device=there))
    if least := eos and config.min_new_tokens:

        def after(begin: int) -> Rule:
            return rules.MinNewTokensLengthLogitsProcessor(begin, least, eos, device=there)

        found.append(_FromOwn(after, of_prompt=True))
    if first := getattr(config, "begin_suppress_tokens", None):

        def at(begin: int) -> Rule:
            return rules.SuppressTokensAtBeginLogitsProcessor(first, begin, device=there)

        found.append(_FromOwn(at, of_prompt=False))
    if config.suppress_tokens:
        found.append(rules.SuppressTokensLogitsProcessor(config.suppress_tokens, there))
    return found
