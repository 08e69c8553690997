// Products of activations with weights as they lie in the file: Y[M, N] = X[M, K] W[N, K]^T.
//
// A weight row is read once from memory for all rows of the step. An output element is one chain of
// multiply-adds along K in a fixed order, whatever M, the block it is computed in or the thread:
// that is what makes a row's result independent of its neighbours, and with it prefix reuse,
// chunking, suspension and speculation exact.
#pragma once

#include <algorithm>
#include <vector>

#include "amx.h"
#include "simd.h"

// Small loops over the rows and columns of a block: their accumulators must stay in registers.
#define UNROLL _Pragma("GCC unroll 8")

namespace llmos {

enum class Kind : int32_t { F32 = 0, BF16 = 1, F16 = 2, I8 = 3, I4 = 4 };

constexpr int GROUP = 64;  // elements of K that share a scale, in I4

struct Matrix {
  const void* data;
  const float* scale;  // I8: of each row; I4: of each group of each row
  int64_t stride;      // bytes from row to row
  int32_t rows, cols;  // N, K
  Kind kind;
};

// Activations as a kernel reads them. F32, F16: floats; BF16: bf16 pairs. I8: bytes, a scale of each
// row, the row's sum. I4: of each group 64 bytes and 16 sums of four, negated, times 8.
struct Operand {
  char* data;
  float* scale;
  int32_t* sums;
  int64_t stride;
};

// Whether bf16 goes through tiles; set once, before anything is computed.
inline bool tiles_on = false;

inline int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// Elements of K are padded with zeros to whole vectors of the kind. Tiles hold sixteen rows together.
inline int64_t operand_stride(Kind kind, int64_t cols) {
  switch (kind) {
    case Kind::BF16:
#if __AVX512BF16__
      return round_up(cols, 32) * 2;
#else
      return round_up(cols, 32) * 4;
#endif
    case Kind::I8: return round_up(cols, 64);
    case Kind::I4: return round_up(cols, 128) / GROUP * (GROUP + 64);
    default: return round_up(cols, 32) * 4;
  }
}

inline int round_to_int8(float x, float inverse) {
  float scaled = x * inverse;
  return (int)__builtin_rintf(scaled);
}

// One row of activations to what the kernel of a kind multiplies. `x` has `cols` floats.
inline void make_operand(Kind kind, const Operand& op, int64_t row, const float* x, int64_t cols) {
#if LLMOS_AMX
  if (kind == Kind::BF16 && tiles_on) return make_tile_operand(op.data, row, x, cols);
#endif
  char* out = op.data + row * op.stride;
  if (kind == Kind::I8 || kind == Kind::I4) {
    f32x16 top{};
    int64_t k = 0;
    for (; k + LANES <= cols; k += LANES) {
      f32x16 v = load(x + k);
      top = max(top, v < 0 ? -v : v);
    }
    float peak = largest(top);
    for (; k < cols; k++) peak = std::fabs(x[k]) > peak ? std::fabs(x[k]) : peak;
    // a NaN must reach the logits, where it is found: it cannot be held by an integer
    bool finite = true;
    for (int64_t i = 0; i < cols; i++) finite = finite && std::isfinite(x[i]);
    float scale = finite ? peak / 127.0f : std::numeric_limits<float>::quiet_NaN();
    op.scale[row] = scale;
    float inverse = finite && peak > 0 ? 127.0f / peak : 0.0f;
    if (kind == Kind::I8) {
      int8_t* q = (int8_t*)out;
      int32_t total = 0;
      for (int64_t i = 0; i < cols; i++) {
        q[i] = (int8_t)(finite ? round_to_int8(x[i], inverse) : 0);
        total += q[i];
      }
      std::memset(q + cols, 0, op.stride - cols);
      op.sums[row] = total;
      return;
    }
    for (int64_t g = 0; g * GROUP < round_up(cols, 128); g++) {
      int8_t* q = (int8_t*)(out + g * (GROUP + 64));
      int32_t* sums = (int32_t*)(q + GROUP);
      std::memset(q, 0, GROUP + 64);
      for (int64_t i = 0; i < GROUP && g * GROUP + i < cols; i++) {
        q[i] = (int8_t)(finite ? round_to_int8(x[g * GROUP + i], inverse) : 0);
        sums[i / 4] -= 8 * q[i];
      }
    }
    return;
  }
#if __AVX512BF16__
  if (kind == Kind::BF16) {
    bf16* y = (bf16*)out;
    int64_t k = 0;
    for (; k + LANES <= cols; k += LANES) store(y + k, load(x + k));
    for (; k < cols; k++) from_f32(x[k], y[k]);
    std::memset(y + cols, 0, op.stride - cols * 2);
    return;
  }
#endif
  float* y = (float*)out;
  if (kind == Kind::BF16) {
    // what a bf16 product would see, where the machine has none
    for (int64_t k = 0; k < cols; k++) {
      bf16 rounded;
      from_f32(x[k], rounded);
      y[k] = to_f32(rounded);
    }
  } else {
    std::memcpy(y, x, cols * 4);
  }
  std::memset(y + cols, 0, op.stride - cols * 4);
}

#if __AVX512VNNI__
using i8x64 = __m512i;
inline i32x16 dot4(i32x16 acc, i8x64 unsigned_, i8x64 signed_) {
  return (i32x16)_mm512_dpbusd_epi32((__m512i)acc, unsigned_, signed_);
}
inline i8x64 load_bytes(const void* p) { return _mm512_loadu_si512(p); }
inline i8x64 flip_sign(i8x64 v) { return _mm512_xor_si512(v, _mm512_set1_epi8((char)0x80)); }
inline i8x64 low_nibbles(i8x64 v) { return _mm512_and_si512(v, _mm512_set1_epi8(15)); }
inline i8x64 high_nibbles(i8x64 v) { return low_nibbles(_mm512_srli_epi16(v, 4)); }
#else
struct i8x64 { uint8_t byte[64]; };
inline i32x16 dot4(i32x16 acc, const i8x64& a, const i8x64& b) {
  for (int i = 0; i < LANES; i++)
    for (int j = 0; j < 4; j++) acc[i] += (int32_t)a.byte[i * 4 + j] * (int32_t)(int8_t)b.byte[i * 4 + j];
  return acc;
}
inline i8x64 load_bytes(const void* p) { i8x64 r; std::memcpy(&r, p, 64); return r; }
inline i8x64 flip_sign(i8x64 v) { for (auto& b : v.byte) b ^= 0x80; return v; }
inline i8x64 low_nibbles(i8x64 v) { for (auto& b : v.byte) b &= 15; return v; }
inline i8x64 high_nibbles(i8x64 v) { for (auto& b : v.byte) b >>= 4; return v; }
#endif

// A kernel: what a vector of weights is, and how it meets one of activations. `STEP` elements of K at
// a time. `EXACT_TAIL`: a row ends where its elements do, so that the last step reads fewer.

template <class T> struct FloatKernel {  // F32, F16, and BF16 without its instruction
  static constexpr int STEP = LANES, WEIGHT_BYTES = sizeof(T) * STEP, X_BYTES = 4 * STEP;
  using Acc = f32x16;
  using W = f32x16;
  using X = f32x16;
  static W weight(const char* row) { return load((const T*)row); }
  static W weight_part(const char* row, int count) { return load_part((const T*)row, count); }
  static X activation(const char* x) { return load((const float*)x); }
  static void step(Acc& acc, W w, X x) { acc = fma(w, x, acc); }
};

#if __AVX512BF16__
struct Bf16Kernel {
  static constexpr int STEP = 32, WEIGHT_BYTES = 64, X_BYTES = 64;
  using Acc = f32x16;
  using W = __m512i;
  using X = __m512i;
  static W weight(const char* row) { return _mm512_loadu_si512(row); }
  static W weight_part(const char* row, int count) {
    return _mm512_maskz_loadu_epi16(((uint64_t)1 << count) - 1, row);
  }
  static X activation(const char* x) { return _mm512_loadu_si512(x); }
  static void step(Acc& acc, W w, X x) {
    acc = (f32x16)_mm512_dpbf16_ps((__m512)acc, (__m512bh)w, (__m512bh)x);
  }
};
#else
using Bf16Kernel = FloatKernel<bf16>;
#endif

struct I8Kernel {  // weights + 128 are the unsigned side; 128 times the row's sum is taken off again
  static constexpr int STEP = 64, WEIGHT_BYTES = 64, X_BYTES = 64;
  using Acc = i32x16;
  using W = i8x64;
  using X = i8x64;
  static W weight(const char* row) { return flip_sign(load_bytes(row)); }
  static W weight_part(const char* row, int) { return weight(row); }  // rows are padded
  static X activation(const char* x) { return load_bytes(x); }
  static void step(Acc& acc, const W& w, const X& x) { acc = dot4(acc, w, x); }
};

// Four outputs of one row of activations from the lanes of their accumulators.
inline f32x4 finish(f32x16 a, f32x16 b, f32x16 c, f32x16 d, const float*, const Operand&, int64_t) {
  return sum4(a, b, c, d);
}
inline f32x4 finish(i32x16 a, i32x16 b, i32x16 c, i32x16 d, const float* scale, const Operand& x, int64_t m) {
  f32x4 scales;
  std::memcpy(&scales, scale, sizeof scales);
  return __builtin_convertvector(sum4(a, b, c, d) - 128 * x.sums[m], f32x4) * (scales * x.scale[m]);
}

constexpr int NB = 4;  // weight rows of a block

#if LLMOS_AVX512
// A value that is used NB times is loaded once: the compiler would rather load it at each use.
template <class V> inline void keep(V& v) { asm("" : "+v"(v)); }
#if !__AVX512VNNI__
inline void keep(i8x64&) {}  // bytes in memory: no register holds them
#endif
#else
template <class V> inline void keep(V&) {}
#endif

// How a block stands in the whole of K: its steps, and whether sums begin or end with it. Sums that go on
// are kept as they are, lane by lane: a cut in K changes no bit.
struct Stretch {
  int64_t begin, end;
  bool first, last;
};

// A block of MB x NB outputs over a stretch of K. `sums` holds MB x NB accumulators between stretches.
template <class K, int MB>
inline void block(const Matrix& w, int64_t n, const Operand& x, int64_t m, const char* ahead, Stretch at,
                  typename K::Acc* sums, float* out, int64_t out_stride) {
  typename K::Acc acc[MB][NB] = {};
  if (!at.first)
    UNROLL for (int i = 0; i < MB; i++)
      UNROLL for (int j = 0; j < NB; j++) acc[i][j] = sums[i * NB + j];
  const char* row = (const char*)w.data + n * w.stride + at.begin * K::WEIGHT_BYTES;
  const char* xs = x.data + m * x.stride + at.begin * K::X_BYTES;
  for (int64_t s = at.begin; s < at.end; s++, row += K::WEIGHT_BYTES, xs += K::X_BYTES) {
    typename K::W vs[NB];
    UNROLL for (int j = 0; j < NB; j++) {
      vs[j] = K::weight(row + j * w.stride);
      if (ahead) __builtin_prefetch(ahead + j * w.stride + s * K::WEIGHT_BYTES, 0, 2);
    }
    UNROLL for (int i = 0; i < MB; i++) {
      typename K::X v = K::activation(xs + i * x.stride);
      keep(v);
      UNROLL for (int j = 0; j < NB; j++) K::step(acc[i][j], vs[j], v);
    }
  }
  if (!at.last) {
    UNROLL for (int i = 0; i < MB; i++)
      UNROLL for (int j = 0; j < NB; j++) sums[i * NB + j] = acc[i][j];
    return;
  }
  if (int rest = (int)(w.cols % K::STEP))
    UNROLL for (int j = 0; j < NB; j++) {
      typename K::W v = K::weight_part(row + j * w.stride, rest);
      UNROLL for (int i = 0; i < MB; i++) K::step(acc[i][j], v, K::activation(xs + i * x.stride));
    }
  UNROLL for (int i = 0; i < MB; i++) {
    f32x4 y = finish(acc[i][0], acc[i][1], acc[i][2], acc[i][3], w.scale + n, x, m + i);
    std::memcpy(out + i * out_stride, &y, sizeof y);
  }
}

// I4: two groups of 64 in 64 bytes, low nibbles first; sums of a group become floats at once. A step is
// both groups.
struct I4Kernel {
  static constexpr int STEP = 2 * GROUP, WEIGHT_BYTES = 64, X_BYTES = 2 * (GROUP + 64);
  using Acc = f32x16;
};

template <int MB>
inline void block_i4(const Matrix& w, int64_t n, const Operand& x, int64_t m, const char* ahead, Stretch at,
                     f32x16* sums, float* out, int64_t out_stride) {
  f32x16 acc[MB][NB] = {};
  if (!at.first)
    UNROLL for (int i = 0; i < MB; i++)
      UNROLL for (int j = 0; j < NB; j++) acc[i][j] = sums[i * NB + j];
  int64_t num_groups = round_up(w.cols, 2 * GROUP) / GROUP;
  const char* row = (const char*)w.data + n * w.stride + at.begin * GROUP;
  const char* xs = x.data + m * x.stride + at.begin * I4Kernel::X_BYTES;
  const float* scale = w.scale + n * num_groups + 2 * at.begin;
  for (int64_t s = at.begin; s < at.end; s++, row += GROUP) {
    i8x64 packed[NB];
    UNROLL for (int j = 0; j < NB; j++) {
      packed[j] = load_bytes(row + j * w.stride);
      if (ahead) __builtin_prefetch(ahead + j * w.stride + s * GROUP, 0, 2);
    }
    for (int half = 0; half < 2; half++, xs += GROUP + 64, scale++) {
      i8x64 vs[NB];
      f32x16 scales[NB];
      UNROLL for (int j = 0; j < NB; j++) {
        vs[j] = half ? high_nibbles(packed[j]) : low_nibbles(packed[j]);
        scales[j] = splat(scale[j * num_groups]);
      }
      UNROLL for (int i = 0; i < MB; i++) {
        i8x64 v = load_bytes(xs + i * x.stride);
        keep(v);
        i32x16 minus;
        std::memcpy(&minus, xs + i * x.stride + GROUP, sizeof minus);
        UNROLL for (int j = 0; j < NB; j++)
          acc[i][j] = fma(__builtin_convertvector(dot4(minus, vs[j], v), f32x16), scales[j], acc[i][j]);
      }
    }
  }
  if (!at.last) {
    UNROLL for (int i = 0; i < MB; i++)
      UNROLL for (int j = 0; j < NB; j++) sums[i * NB + j] = acc[i][j];
    return;
  }
  UNROLL for (int i = 0; i < MB; i++) {
    f32x4 y = sum4(acc[i][0], acc[i][1], acc[i][2], acc[i][3]) * x.scale[m + i];
    std::memcpy(out + i * out_stride, &y, sizeof y);
  }
}

template <Kind KIND> struct KernelOf;
template <> struct KernelOf<Kind::F32> { using K = FloatKernel<float>; };
template <> struct KernelOf<Kind::BF16> { using K = Bf16Kernel; };
template <> struct KernelOf<Kind::F16> { using K = FloatKernel<f16>; };
template <> struct KernelOf<Kind::I8> { using K = I8Kernel; };
template <> struct KernelOf<Kind::I4> { using K = I4Kernel; };

template <Kind KIND, int MB, class Acc>
inline void block_of(const Matrix& w, int64_t n, const Operand& x, int64_t m, const char* ahead, Stretch at,
                     Acc* sums, float* out, int64_t out_stride) {
  if constexpr (KIND == Kind::I4) block_i4<MB>(w, n, x, m, ahead, at, sums, out, out_stride);
  else block<typename KernelOf<KIND>::K, MB>(w, n, x, m, ahead, at, sums, out, out_stride);
}

// NB weight rows with rows [m, m_end) of activations, as many at a time as registers hold.
template <Kind KIND, class Acc>
inline void column_of(const Matrix& w, int64_t n, const char* ahead, const Operand& x, int64_t m,
                      int64_t m_end, Stretch at, Acc* sums, float* out, int64_t out_stride) {
  constexpr int MB = KIND == Kind::I4 ? 4 : 6;
  for (; m_end - m >= MB; m += MB, out += MB * out_stride, sums += MB * NB, ahead = nullptr)
    block_of<KIND, MB>(w, n, x, m, ahead, at, sums, out, out_stride);
  switch (m_end - m) {
    case 1: return block_of<KIND, 1>(w, n, x, m, ahead, at, sums, out, out_stride);
    case 2: return block_of<KIND, 2>(w, n, x, m, ahead, at, sums, out, out_stride);
    case 3: return block_of<KIND, 3>(w, n, x, m, ahead, at, sums, out, out_stride);
    case 4: return block_of<KIND, 4>(w, n, x, m, ahead, at, sums, out, out_stride);
    case 5: return block_of<KIND, 5>(w, n, x, m, ahead, at, sums, out, out_stride);
  }
}

// Few rows: weights stream past all of them once. Many: a few rows stay nearest while the item's weights,
// in the next cache, are read again for each. Both cut K where a stretch of the rows would not stay near.
template <Kind KIND>
inline void multiply_kind(const Matrix& w, int64_t n, int64_t n_end, const Operand& x, int64_t m,
                          int64_t m_end, float* out, int64_t out_stride) {
  using K = typename KernelOf<KIND>::K;
  using Acc = typename K::Acc;
  constexpr int64_t FEW = 48, NEAR = 12, NEAR_BYTES = 2560;  // rows; of a row
  int64_t num_steps = KIND == Kind::I4 ? round_up(w.cols, K::STEP) / K::STEP : w.cols / K::STEP;
  int64_t num_cuts = std::max<int64_t>(1, (num_steps * K::X_BYTES + NEAR_BYTES - 1) / NEAR_BYTES);
  if (m_end - m <= 6) num_cuts = 1;  // one block of rows: nothing is read twice
  int64_t rows = m_end - m <= FEW ? m_end - m : NEAR;
  int64_t columns = m_end - m <= FEW ? NB : n_end - n;
  thread_local std::vector<char> room;
  room.resize(sizeof(Acc) * (rows + 6) * columns + 64);
  Acc* sums = (Acc*)(((uintptr_t)room.data() + 63) / 64 * 64);
  auto stretch = [&](int64_t c) {
    return Stretch{num_steps * c / num_cuts, num_steps * (c + 1) / num_cuts, c == 0, c + 1 == num_cuts};
  };
  auto ahead = [&](int64_t j) { return j + 2 * NB <= n_end ? (const char*)w.data + (j + NB) * w.stride : nullptr; };
  if (m_end - m <= FEW) {
    for (int64_t j = n; j < n_end; j += NB)
      for (int64_t c = 0; c < num_cuts; c++)
        column_of<KIND>(w, j, ahead(j), x, m, m_end, stretch(c), sums, out + (j - n), out_stride);
    return;
  }
  for (int64_t mm = m; mm < m_end; mm += rows) {
    int64_t mm_end = std::min(m_end, mm + rows);
    for (int64_t c = 0; c < num_cuts; c++)
      for (int64_t j = n; j < n_end; j += NB)
        column_of<KIND>(w, j, nullptr, x, mm, mm_end, stretch(c), sums + (j - n) * (rows + 6),
                        out + (mm - m) * out_stride + (j - n), out_stride);
  }
}

// Outputs [m, m_end) x [n, n_end) to `out`, whose first element is that of (m, n). Both ends of n are
// multiples of NB: a matrix has whole blocks of rows (see `whole_rows`).
inline void multiply(const Matrix& w, int64_t n, int64_t n_end, const Operand& x, int64_t m, int64_t m_end,
                     float* out, int64_t out_stride) {
#if LLMOS_AMX
  if (w.kind == Kind::BF16 && tiles_on)
    return multiply_tiles((const char*)w.data, w.stride, w.cols, n, n_end, x.data, m_end, out, out_stride);
#endif
  switch (w.kind) {
    case Kind::F32: return multiply_kind<Kind::F32>(w, n, n_end, x, m, m_end, out, out_stride);
    case Kind::BF16: return multiply_kind<Kind::BF16>(w, n, n_end, x, m, m_end, out, out_stride);
    case Kind::F16: return multiply_kind<Kind::F16>(w, n, n_end, x, m, m_end, out, out_stride);
    case Kind::I8: return multiply_kind<Kind::I8>(w, n, n_end, x, m, m_end, out, out_stride);
    case Kind::I4: return multiply_kind<Kind::I4>(w, n, n_end, x, m, m_end, out, out_stride);
  }
}

// Whether tiles may be used here, and give what a plain sum gives: asked once a process.
inline bool tiles_work() {
#if LLMOS_AMX
  if (!amx_allowed()) return false;
  constexpr int N = 41, K = 75, M = 19;
  std::vector<bf16> w(N * K);
  std::vector<float> x(M * K), y(M * N);
  for (int i = 0; i < N * K; i++) from_f32((float)((i * 37) % 101 - 50) / 64.0f, w[i]);
  for (int i = 0; i < M * K; i++) x[i] = (float)((i * 53) % 89 - 44) / 32.0f;  // exact in bf16
  std::vector<char> operand(tile_operand_bytes(M, K));
  for (int m = 0; m < M; m++) make_tile_operand(operand.data(), m, x.data() + m * K, K);
  multiply_tiles((const char*)w.data(), K * 2, K, 0, N, operand.data(), M, y.data(), N);
  for (int m = 0; m < M; m++)
    for (int n = 0; n < N; n++) {
      double sum = 0;
      for (int k = 0; k < K; k++) sum += (double)x[m * K + k] * to_f32(w[n * K + k]);
      if (std::fabs(sum - y[m * N + n]) > 1e-3) return false;
    }
  return true;
#else
  return false;
#endif
}

}  // namespace llmos
