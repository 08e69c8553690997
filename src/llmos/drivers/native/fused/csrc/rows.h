// What is done to one row of activations at a time: norms, activations, rotary positions.
#pragma once

#include "simd.h"

namespace llmos {

enum class NormKind : int32_t { NONE = 0, RMS = 1, LAYER = 2 };

struct Norm {
  const float* weight;  // null: ones
  const float* bias;    // null: zeros
  NormKind kind;
  float eps;
};

// `y` may be `x`. Statistics are of the row alone, lanes first, then the rest, then lanes together.
inline void normalize(const Norm& norm, const float* x, float* y, int64_t size) {
  int64_t whole = size / LANES * LANES, rest = size - whole;
  float mean = 0;
  if (norm.kind == NormKind::LAYER) {
    f32x16 total{};
    for (int64_t i = 0; i < whole; i += LANES) total += load(x + i);
    if (rest) total += load_part(x + whole, (int)rest);
    mean = sum(total) / (float)size;
  }
  f32x16 squares{};
  f32x16 minus = splat(mean);
  for (int64_t i = 0; i < whole; i += LANES) {
    f32x16 v = load(x + i) - minus;
    squares = fma(v, v, squares);
  }
  if (rest) {
    f32x16 v = load_part(x + whole, (int)rest) - minus;
    for (int i = (int)rest; i < LANES; i++) v[i] = 0;
    squares = fma(v, v, squares);
  }
  float inverse = 1.0f / std::sqrt(sum(squares) / (float)size + norm.eps);
  auto one = [&](f32x16 v, f32x16 w, f32x16 b) { return (v - minus) * inverse * w + b; };
  for (int64_t i = 0; i < whole; i += LANES) {
    f32x16 w = norm.weight ? load(norm.weight + i) : splat(1.0f);
    f32x16 b = norm.bias ? load(norm.bias + i) : f32x16{};
    store(y + i, one(load(x + i), w, b));
  }
  if (rest) {
    f32x16 w = norm.weight ? load_part(norm.weight + whole, (int)rest) : splat(1.0f);
    f32x16 b = norm.bias ? load_part(norm.bias + whole, (int)rest) : f32x16{};
    store_part(y + whole, one(load_part(x + whole, (int)rest), w, b), (int)rest);
  }
}

enum class Activation : int32_t { SILU = 0, GELU = 1, GELU_TANH = 2, RELU = 3, RELU2 = 4, QUICK_GELU = 5 };

inline f32x16 sigmoid(f32x16 x) { return splat(1.0f) / (splat(1.0f) + exp(-x)); }

inline f32x16 activate(Activation kind, f32x16 x) {
  switch (kind) {
    case Activation::SILU: return x * sigmoid(x);
    case Activation::QUICK_GELU: return x * sigmoid(x * splat(1.702f));
    case Activation::GELU_TANH: {
      f32x16 inner = fma(x * x * x, splat(0.044715f), x) * splat(0.79788456080286535588f);
      return x * splat(0.5f) * (splat(1.0f) + tanh(inner));
    }
    case Activation::GELU: {
      f32x16 r;
      for (int i = 0; i < LANES; i++) r[i] = 0.5f * x[i] * (1.0f + std::erf(x[i] * 0.70710678118654752f));
      return r;
    }
    case Activation::RELU: return x > 0 ? x : x * 0.0f;  // a NaN stays one
    case Activation::RELU2: {
      f32x16 r = x > 0 ? x : x * 0.0f;
      return r * r;
    }
  }
  return x;
}

// h = activation(gate) * up, or activation(up) where there is no gate; `h` may be either.
inline void combine(Activation kind, const float* gate, const float* up, float* h, int64_t size) {
  for (int64_t i = 0; i < size; i += LANES) {
    int count = (int)(size - i < LANES ? size - i : LANES);
    f32x16 u = count == LANES ? load(up + i) : load_part(up + i, count);
    f32x16 y;
    if (gate) {
      f32x16 g = count == LANES ? load(gate + i) : load_part(gate + i, count);
      y = activate(kind, g) * u;
    } else {
      y = activate(kind, u);
    }
    if (count == LANES) store(h + i, y); else store_part(h + i, y, count);
  }
}

struct Rope {
  const float* cos;  // [positions, dim / 2]; null: no rotation
  const float* sin;
  int32_t dim;
  int32_t interleaved;
};

// Rotates the first `dim` elements of a head (arXiv:2104.09864): halves, or neighbours, as pairs.
inline void rotate(const Rope& rope, int64_t position, float* head) {
  int half = rope.dim / 2;
  const float* c = rope.cos + position * half;
  const float* s = rope.sin + position * half;
  int step = rope.interleaved ? 2 : 1, far = rope.interleaved ? 1 : half;
  for (int i = 0; i < half; i++) {
    float a = head[i * step], b = head[i * step + far];
    head[i * step] = a * c[i] - b * s[i];
    head[i * step + far] = b * c[i] + a * s[i];
  }
}

}  // namespace llmos
