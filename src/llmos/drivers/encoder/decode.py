"""Texts made one token at a time by a decoder that reads an encoder's states.

The likeliest token is taken, under the rules of the folder's `generation_config.json` (`rules`), or
the likeliest text is looked for (`beams`).

Shapes: B places, L tokens read, T columns, K beams, V vocabulary.
"""

# ruff: noqa: N803, N806 (tensor names carry their shape)
from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutput

from llmos.drivers.encoder.beams import Beams, Search
from llmos.drivers.encoder.groups import Group, Writing
from llmos.drivers.encoder.kinds import Head
from llmos.drivers.encoder.limits import LIMITS
from llmos.drivers.encoder.load import Loaded
from llmos.drivers.encoder.positions import Positions
from llmos.drivers.encoder.rules import Rules
from llmos.drivers.encoder.work import Work
from llmos.errors import ModelRejected

UNSAID_TOKENS = 256
"""Of a text where neither the request nor the folder says how long it may be."""


class Decoder:
    """Of one loaded model with a decoder."""

    def __init__(self, loaded: Loaded) -> None:
        """Raises ModelRejected."""
        self._device = loaded.device
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
        self._rules = Rules(config, sorted(self.eos), loaded.device)
        self._positions = Positions(loaded)
        self._search = Search(
            1.0 if config.length_penalty is None else float(config.length_penalty),
            config.early_stopping or False,
        )

    @property
    def can_join(self) -> bool:
        """Whether texts that begin at different times may be made side by side."""
        return self._positions.can_differ

    def most_tokens(self, asked: int | None, num_given: int = 0) -> int:
        """That one text may have, a prompt of `num_given` among them. `asked` None: as the folder
        says."""
        new = asked or self.config.max_new_tokens
        if not new and self.config.max_length:
            new = max(1, self.config.max_length - 1 - num_given)  # which counts a prompt as well
        most = num_given + min(new or UNSAID_TOKENS, LIMITS.new_tokens)
        return max(1, min(most, self._most - 1) if self._most else most)

    def begin(self, works: Sequence[Work], states_BLH: Any, mask_BL: Any) -> Group:
        """A group whose encoder has run. All have the same number of beams."""
        lengths = [work.row.length for work in works]
        if mask_BL is None:
            lengths = [states_BLH.shape[1]] * len(works)
        rows = [self._writing(work, length) for work, length in zip(works, lengths, strict=True)]
        return Group(rows, states_BLH, mask_BL, self.start)

    def most_of(self, work: Work) -> int:
        """Tokens that its text may have."""
        forced, num_given = self._forced(work)
        asked = work.request.params["max_new_tokens"]
        return max(self.most_tokens(asked, num_given), len(forced) + 1)

    def _forced(self, work: Work) -> tuple[list[int], int]:
        """Tokens that its text begins with, and how many of them are a prompt."""
        about = work.open.item.about or {}
        prompt = about.get("prompt", ())
        forced = prompt or about.get("forced")
        if forced is None:
            bos = self.config.forced_bos_token_id
            forced = [bos] if isinstance(bos, int) else []
        return list(forced), len(prompt)

    def _writing(self, work: Work, num_read: int) -> Writing:
        forced, num_given = self._forced(work)
        count = num_beams_of(work)
        beams = Beams(count, self._search, num_given) if count > 1 else None
        return Writing(work, forced, self.most_of(work), num_read, num_given, beams)

    def advance(self, group: Group) -> list[Writing]:
        """One token for every row; those that have ended, which are in the group no more."""
        logits_BV = self._forward(group)[:, -1].float()
        group.begun()
        ended = (self._search_on if group.num_beams > 1 else self._draw)(group, logits_BV)
        if ended:
            group.leave(ended)
        return ended

    def _forward(self, group: Group) -> torch.Tensor:
        """Logits after the newest tokens."""
        newest_B1, mask_BT = group.ids_BT[:, -1:], group.own_mask
        told = self._positions.tell(group.positions, self._device)
        if self._is_captioner:
            out = self._model.text_decoder(
                input_ids=newest_B1,
                attention_mask=mask_BT,
                encoder_hidden_states=group.states_or_size,
                past_key_values=group.cache,
                use_cache=True,
                **told,
            )
        else:
            out = self._model(
                encoder_outputs=BaseModelOutput(last_hidden_state=group.states_or_size),
                attention_mask=group.mask_BL,
                decoder_input_ids=newest_B1,
                decoder_attention_mask=mask_BT,
                past_key_values=group.cache,
                use_cache=True,
                **told,
            )
        logits: torch.Tensor = out.logits
        return logits

    def _ruled(self, group: Group, scores_BV: torch.Tensor) -> torch.Tensor:
        """Rows that are alike to every rule are ruled together."""
        if not self._rules:
            return scores_BV
        alike: dict[tuple[int, int, int], list[int]] = {}
        for i, row in enumerate(group.rows):
            places = range(i * group.num_beams, (i + 1) * group.num_beams)
            alike.setdefault((row.start, row.num_given, len(row.forced)), []).extend(places)
        scores_BV = scores_BV.clone()
        for (start, *begins), at in alike.items():
            scores_BV[at] = self._rules(group.ids_BT[at, start:], scores_BV[at], *begins)
        return scores_BV

    def _draw(self, group: Group, logits_BV: torch.Tensor) -> list[Writing]:
        """The likeliest token of every row."""
        drawn = self._ruled(group, logits_BV).argmax(dim=-1).tolist()
        for row, token in zip(group.rows, drawn, strict=True):
            made = len(row.tokens)
            row.tokens.append(row.forced[made] if made < len(row.forced) else token)
            if made == row.most - 1 and self._last is not None:
                row.is_cut = row.tokens[-1] not in self.eos
                row.tokens[-1] = self._last
        group.add_column([row.tokens[-1] for row in group.rows])
        return [row for row in group.rows if self._is_over(row)]

    def _is_over(self, row: Writing) -> bool:
        is_own = len(row.tokens) > len(row.forced)
        return (is_own and row.tokens[-1] in self.eos) or len(row.tokens) >= row.most

    def _search_on(self, group: Group, logits_BV: torch.Tensor) -> list[Writing]:
        """The beams of every row take one step."""
        scores_BV = self._ruled(group, logits_BV.log_softmax(dim=-1))
        sources: list[int] = []
        newest: list[int] = []
        ended: list[Writing] = []
        for i, row in enumerate(group.rows):
            beams, first = row.beams, i * group.num_beams
            assert beams is not None
            made = beams.num_made
            forced = row.forced[made] if made < len(row.forced) else None
            if made == row.most - 1 and self._last is not None:
                forced, row.is_cut = self._last, True
            scores_KV = scores_BV[first : first + beams.count]
            beams.step(scores_KV, forced, self.eos, row.most)
            if beams.is_over:
                row.tokens = beams.best
                row.is_cut = row.is_cut and len(row.tokens) == row.most
                ended.append(row)
            # one that is over keeps its places until it leaves
            sources += [first + at for at in beams.sources]
            newest += beams.newest
        group.add_column(newest, sources)
        return ended


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
