// What crosses from Python: plain structs, mirrored field by field in binding.py.
#pragma once

#include "attention.h"
#include "linear.h"
#include "rows.h"
#include "sample.h"

namespace llmos {

struct Linear {
  Matrix w;  // no data: absent
  const float* bias;
};

enum class NormOver : int32_t { HEAD = 0, EACH = 1, ALL = 2 };

struct Layer {
  Linear q, k, v, o, gate, up, down;
  Norm q_norm, k_norm, pre_attn, post_attn, pre_mlp, post_mlp;
  Rope rope;
  Heads heads;
  NormOver norm_over;
  Activation activation;
  int32_t norm_after_rope;
  int32_t parallel;
  float clip;  // 0: none
  float residual_scale;
  void* kv;    // the layer's pages
};

struct Model {
  Matrix embed, positions;
  Norm embed_norm, final_norm;
  Linear head;
  Layer* layers;
  int32_t num_layers, hidden, vocab;
  int32_t position_offset;
  float embed_scale, logit_scale, logit_softcap;
  Kind kv_kind;
  int32_t max_rows;  // of a step
};

// Consecutive tokens of one request: rows [row, row + num_rows) of the step, from a position on.
struct Segment {
  const int32_t* pages;
  int32_t start, row, num_rows;
};

struct Step {
  const int32_t* tokens;
  const Segment* segments;
  const int32_t* wanted;  // rows whose logits are wanted
  float* logits;          // [num_wanted, vocab]
  int32_t num_rows, num_segments, num_wanted;
};

}  // namespace llmos
