// Attention over pages of keys and values, for decoding and for reading prompts alike.
//
// A page holds PAGE tokens of all heads of a layer. A head's keys lie transposed, [size][PAGE], so
// that a vector holds one element of sixteen tokens; its values as rows, [PAGE][size]. Sizes are
// padded to whole vectors. Keys are visited in blocks on an absolute grid, with a running softmax
// (arXiv:2205.14135): what a token gets depends on its own prefix only, whoever is beside it and
// wherever the chunk that holds it began.
#pragma once

#include "simd.h"

namespace llmos {

constexpr int PAGE = LANES;
constexpr int BLOCK_PAGES = 16;
constexpr int BLOCK = PAGE * BLOCK_PAGES;

struct Heads {
  int32_t num_heads, num_kv_heads, size, padded;
  int32_t window;  // 0: none
  float scale, softcap;
};

template <class T> struct PagedLayer {
  T* data;
  const Heads* heads;
  int64_t page_elements() const { return (int64_t)heads->num_kv_heads * 2 * PAGE * heads->padded; }
  T* keys(int64_t page, int head) const {
    return data + page * page_elements() + (int64_t)head * 2 * PAGE * heads->padded;
  }
  T* values(int64_t page, int head) const { return keys(page, head) + (int64_t)PAGE * heads->padded; }
};

template <class T>
inline void write_kv(const PagedLayer<T>& layer, int64_t page, int slot, int head, const float* k, const float* v) {
  int size = layer.heads->size, padded = layer.heads->padded;
  T* keys = layer.keys(page, head);
  for (int d = 0; d < padded; d++) from_f32(d < size ? k[d] : 0.0f, keys[(int64_t)d * PAGE + slot]);
  T* values = layer.values(page, head) + (int64_t)slot * padded;
  for (int d = 0; d < padded; d++) from_f32(d < size ? v[d] : 0.0f, values[d]);
}

// Queries of one key/value head: `rows` of them, each with its position.
struct Queries {
  float* q;        // [rows][padded], scaled
  float* out;      // [rows][padded]
  float* scores;   // [rows][BLOCK]
  float* top;      // [rows]: the largest score so far
  float* total;    // [rows]: the sum of exponentials so far
  int64_t* positions;
  int rows;
};

#define UNROLL_ROWS _Pragma("GCC unroll 8")

// Scores of R rows against P pages.
template <class T, int R, int P>
inline void score_pages(const PagedLayer<T>& layer, const int32_t* pages, int head, const float* q, float* out) {
  int padded = layer.heads->padded;
  f32x16 acc[R][P] = {};
  const T* keys[P];
  UNROLL_ROWS for (int p = 0; p < P; p++) keys[p] = layer.keys(pages[p], head);
  for (int d = 0; d < layer.heads->size; d++) {
    f32x16 k[P];
    UNROLL_ROWS for (int p = 0; p < P; p++) k[p] = load(keys[p] + (int64_t)d * PAGE);
    UNROLL_ROWS for (int r = 0; r < R; r++) {
      f32x16 x = splat(q[(int64_t)r * padded + d]);
      UNROLL_ROWS for (int p = 0; p < P; p++) acc[r][p] = fma(x, k[p], acc[r][p]);
    }
  }
  UNROLL_ROWS for (int r = 0; r < R; r++)
    UNROLL_ROWS for (int p = 0; p < P; p++) store(out + r * BLOCK + p * PAGE, acc[r][p]);
}

template <class T, int P>
inline void score_rows(const PagedLayer<T>& layer, const int32_t* pages, int head, const Queries& q, int at) {
  int r = 0, padded = layer.heads->padded;
  auto x = [&](int row) { return q.q + (int64_t)row * padded; };
  auto y = [&](int row) { return q.scores + (int64_t)row * BLOCK + at * PAGE; };
  for (; r + 6 <= q.rows; r += 6) score_pages<T, 6, P>(layer, pages, head, x(r), y(r));
  for (; r + 4 <= q.rows; r += 4) score_pages<T, 4, P>(layer, pages, head, x(r), y(r));
  for (; r + 2 <= q.rows; r += 2) score_pages<T, 2, P>(layer, pages, head, x(r), y(r));
  for (; r < q.rows; r++) score_pages<T, 1, P>(layer, pages, head, x(r), y(r));
}

// out[r] += weights of `num_keys` tokens times values, V vectors of a head at a time.
template <class T, int R, int V>
inline void add_values(const PagedLayer<T>& layer, const int32_t* pages, int head, int num_keys, int d,
                       const float* weights, float* out) {
  int padded = layer.heads->padded;
  f32x16 acc[R][V];
  UNROLL_ROWS for (int r = 0; r < R; r++)
    UNROLL_ROWS for (int v = 0; v < V; v++) acc[r][v] = load(out + (int64_t)r * padded + d + v * LANES);
  for (int t = 0; t < num_keys;) {
    const T* row = layer.values(pages[t / PAGE], head) + d;
    int end = t + PAGE < num_keys ? t + PAGE : num_keys;
    for (; t < end; t++, row += padded) {
      f32x16 value[V];
      UNROLL_ROWS for (int v = 0; v < V; v++) value[v] = load(row + v * LANES);
      UNROLL_ROWS for (int r = 0; r < R; r++) {
        f32x16 w = splat(weights[r * BLOCK + t]);
        UNROLL_ROWS for (int v = 0; v < V; v++) acc[r][v] = fma(w, value[v], acc[r][v]);
      }
    }
  }
  UNROLL_ROWS for (int r = 0; r < R; r++)
    UNROLL_ROWS for (int v = 0; v < V; v++) store(out + (int64_t)r * padded + d + v * LANES, acc[r][v]);
}

template <class T, int V>
inline void add_rows(const PagedLayer<T>& layer, const int32_t* pages, int head, int num_keys, int d, const Queries& q) {
  int r = 0, padded = layer.heads->padded;
  auto w = [&](int row) { return q.scores + (int64_t)row * BLOCK; };
  auto o = [&](int row) { return q.out + (int64_t)row * padded; };
  for (; r + 4 <= q.rows; r += 4) add_values<T, 4, V>(layer, pages, head, num_keys, d, w(r), o(r));
  for (; r + 2 <= q.rows; r += 2) add_values<T, 2, V>(layer, pages, head, num_keys, d, w(r), o(r));
  for (; r < q.rows; r++) add_values<T, 1, V>(layer, pages, head, num_keys, d, w(r), o(r));
}

// Scores to weights, for the row's visible keys of [begin, begin + num_keys); rescales what came before.
inline void weigh(const Heads& heads, const Queries& q, int r, int64_t begin, int num_keys) {
  float* s = q.scores + (int64_t)r * BLOCK;
  int64_t last = q.positions[r], first = heads.window > 0 ? last - heads.window + 1 : 0;
  const f32x16 hidden = splat(-std::numeric_limits<float>::infinity());
  i32x16 lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  f32x16 highest = hidden;
  int low = (int)(first - begin > 0 ? (first - begin < BLOCK ? first - begin : BLOCK) : 0);
  int high = (int)(last - begin < BLOCK ? last - begin : BLOCK);  // the last visible one
  for (int t = 0; t < num_keys; t += LANES) {
    f32x16 v = load(s + t);
    if (heads.softcap > 0) v = tanh(v / splat(heads.softcap)) * splat(heads.softcap);
    i32x16 index = lane + t;
    v = (index >= low) & (index <= high) ? v : hidden;
    highest = max(v, highest);
    store(s + t, v);
  }
  float top = largest(highest);
  if (top == hidden[0]) {  // no key of this block is visible, or all scores are broken
    bool broken = false;
    for (int t = low; t <= high && t < num_keys; t++) broken = broken || s[t] != s[t];
    for (int t = 0; t < num_keys; t++) s[t] = 0;
    if (broken) q.total[r] = std::numeric_limits<float>::quiet_NaN();
    return;
  }
  if (top > q.top[r]) {
    float shrink = exp(splat(q.top[r] - top))[0];
    q.total[r] *= shrink;
    float* out = q.out + (int64_t)r * heads.padded;
    for (int d = 0; d < heads.padded; d += LANES) store(out + d, load(out + d) * splat(shrink));
    q.top[r] = top;
  }
  f32x16 total{}, minus = splat(q.top[r]);
  for (int t = 0; t < num_keys; t += LANES) {
    f32x16 v = load(s + t);
    f32x16 e = exp(v - minus);
    e = v != v ? v : e;
    total += e;
    store(s + t, e);
  }
  q.total[r] += sum(total);
}

// All queries over the keys up to the last one's position. `pages` is the request's block table.
template <class T>
inline void attend(const PagedLayer<T>& layer, const int32_t* pages, int head, const Queries& q) {
  const Heads& heads = *layer.heads;
  int64_t last = q.positions[q.rows - 1], begin = 0;
  if (heads.window > 0 && q.positions[0] - heads.window + 1 > 0)
    begin = (q.positions[0] - heads.window + 1) / BLOCK * BLOCK;
  for (int r = 0; r < q.rows; r++) {
    q.top[r] = -std::numeric_limits<float>::infinity();
    q.total[r] = 0;
  }
  std::memset(q.out, 0, sizeof(float) * q.rows * heads.padded);
  for (; begin <= last; begin += BLOCK) {
    int num_keys = (int)(last + 1 - begin < BLOCK ? last + 1 - begin : BLOCK);
    int num_pages = (num_keys + PAGE - 1) / PAGE;
    const int32_t* of_block = pages + begin / PAGE;
    int p = 0;
    for (; p + 4 <= num_pages; p += 4) score_rows<T, 4>(layer, of_block + p, head, q, p);
    for (; p < num_pages; p++) score_rows<T, 1>(layer, of_block + p, head, q, p);
    for (int r = 0; r < q.rows; r++) weigh(heads, q, r, begin, num_pages * PAGE);
    int d = 0;
    for (; d + 4 * LANES <= heads.padded; d += 4 * LANES) add_rows<T, 4>(layer, of_block, head, num_keys, d, q);
    for (; d < heads.padded; d += LANES) add_rows<T, 1>(layer, of_block, head, num_keys, d, q);
  }
  for (int r = 0; r < q.rows; r++) {
    float* out = q.out + (int64_t)r * heads.padded;
    f32x16 inverse = splat(1.0f / q.total[r]);
    for (int d = 0; d < heads.padded; d += LANES) store(out + d, load(out + d) * inverse);
  }
}

}  // namespace llmos
