// The next token of a row of logits. The order of the steps, and what each means, is that of
// sampling.py: temperature, min_p, top_k, top_p, then the inverse of the cumulated probabilities.
#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "simd.h"

namespace llmos {

struct Draw {
  double uniform;  // in [0, 1): decides the token
  float temperature;
  float top_p;
  float min_p;
  int32_t top_k;   // 0: off
  int32_t greedy;
};

constexpr int STRETCH = 1024;  // tokens whose probabilities are summed before the others

inline int argmax(const float* x, int64_t size) {
  f32x16 best = splat(-std::numeric_limits<float>::infinity());
  i32x16 broken{};
  int64_t i = 0;
  for (; i + LANES <= size; i += LANES) {
    f32x16 v = load(x + i);
    broken |= v != v;
    best = max(v, best);
  }
  float top = largest(best);
  for (int j = 0; j < LANES; j++)
    if (broken[j]) return -1;
  for (; i < size; i++) {
    if (x[i] != x[i]) return -1;
    top = x[i] > top ? x[i] : top;
  }
  if (!std::isfinite(top)) return -1;
  for (i = 0; x[i] != top; i++) {}
  return (int)i;
}

// Whose stretch of the cumulated weights holds `at`; the last one of any weight otherwise.
template <class Weight> inline int64_t invert(int64_t size, double at, Weight weight) {
  double cumulated = 0;
  int64_t last = 0;
  for (int64_t i = 0; i < size; i++) {
    double w = weight(i);
    if (w <= 0) continue;
    last = i;
    cumulated += w;
    if (cumulated > at) return i;
  }
  return last;
}

// `probs` is room for `size` floats. -1: the logits are not finite.
inline int draw(const float* logits, int64_t size, const Draw& how, float* probs) {
  int best = argmax(logits, size);
  if (best < 0 || how.greedy) return best;
  f32x16 top = splat(logits[best]), inverse = splat(1.0f / how.temperature);
  float least = how.min_p;  // the most likely token has exactly 1 here
  std::vector<double> sums((size + STRETCH - 1) / STRETCH);
  double total = 0;
  for (size_t s = 0; s < sums.size(); s++) {
    f32x16 stretch{};
    int64_t end = std::min<int64_t>(size, (int64_t)(s + 1) * STRETCH);
    for (int64_t i = (int64_t)s * STRETCH; i < end; i += LANES) {
      int count = (int)std::min<int64_t>(LANES, end - i);
      f32x16 x = count == LANES ? load(logits + i) : load_part(logits + i, count);
      f32x16 p = exp((x - top) * inverse);
      p = p < least ? f32x16{} : p;
      for (int j = count; j < LANES; j++) p[j] = 0;
      stretch += p;
      if (count == LANES) store(probs + i, p); else store_part(probs + i, p, count);
    }
    total += sums[s] = sum(stretch);
  }
  bool cut = how.top_p < 1.0f || (how.top_k > 0 && how.top_k < size);
  if (!cut) {
    double at = how.uniform * total, before = 0;
    size_t s = 0;
    while (s + 1 < sums.size() && before + sums[s] <= at) before += sums[s++];
    int64_t begin = (int64_t)s * STRETCH, end = std::min<int64_t>(size, begin + STRETCH);
    int64_t found = begin + invert(end - begin, at - before, [&](int64_t i) { return probs[begin + i]; });
    while (probs[found] <= 0 && found > 0) found--;
    return (int)found;
  }
  // no token of the nucleus is less likely than this: all below sum to less than 1 - top_p
  float floor = how.top_k > 0 ? 0.0f : (float)((1.0 - how.top_p) * total / (double)size);
  std::vector<std::pair<float, int32_t>> kept;
  for (int64_t i = 0; i < size; i++)
    if (probs[i] > floor) kept.emplace_back(probs[i], (int32_t)i);
  auto likelier = [](const auto& a, const auto& b) { return a.first != b.first ? a.first > b.first : a.second < b.second; };
  if (how.top_k > 0 && (size_t)how.top_k < kept.size()) {
    std::nth_element(kept.begin(), kept.begin() + how.top_k, kept.end(), likelier);
    kept.resize(how.top_k);
  }
  std::sort(kept.begin(), kept.end(), likelier);
  double mass = total;
  if (how.top_k > 0) {
    mass = 0;
    for (auto& k : kept) mass += k.first;
  }
  double before = 0;
  size_t count = 0;
  while (count < kept.size() && (count == 0 || before < how.top_p * mass)) before += kept[count++].first;
  int64_t found = invert((int64_t)count, how.uniform * before, [&](int64_t i) { return kept[i].first; });
  return kept[found].second;
}

}  // namespace llmos
