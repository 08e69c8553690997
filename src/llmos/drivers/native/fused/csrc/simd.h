// Vectors of sixteen floats, and the number formats that weights, keys and values are kept in.
//
// Everything here works on one lane at a time or reduces lanes in one fixed order: what a lane
// holds never depends on what else is computed beside it. The build forbids contraction
// (-ffp-contract=off), so a fused multiply-add happens exactly where `fma` is written.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#define LLMOS_AVX512 1
#include <immintrin.h>
#elif defined(__x86_64__)
#include <immintrin.h>
#endif

namespace llmos {

constexpr int LANES = 16;

typedef float f32x16 __attribute__((vector_size(64)));
typedef int32_t i32x16 __attribute__((vector_size(64)));
typedef float f32x4 __attribute__((vector_size(16)));
typedef float f32x16u __attribute__((vector_size(64), aligned(4)));

struct bf16 { uint16_t bits; };
struct f16 { uint16_t bits; };

inline f32x16 splat(float x) { return f32x16{} + x; }

inline f32x16 fma(f32x16 a, f32x16 b, f32x16 c) {
#if LLMOS_AVX512
  return (f32x16)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#else
  f32x16 r;
  for (int i = 0; i < LANES; i++) r[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return r;
#endif
}

inline f32x16 max(f32x16 a, f32x16 b) { return a > b ? a : b; }

// Lanes are added as a tree: 8 + 8, 4 + 4, ... the same for everybody.
inline float sum(f32x16 v) {
  typedef float f32x8 __attribute__((vector_size(32)));
  union { f32x16 whole; f32x8 half[2]; } a{v};
  union { f32x8 whole; f32x4 half[2]; } b{a.half[0] + a.half[1]};
  f32x4 c = b.half[0] + b.half[1];
  return (c[0] + c[2]) + (c[1] + c[3]);
}

// Four sums at once, each in one order of its own.
inline f32x4 sum4(f32x16 a, f32x16 b, f32x16 c, f32x16 d) {
#if LLMOS_AVX512
  __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps((__m512)a, (__m512)b), _mm512_unpackhi_ps((__m512)a, (__m512)b));
  __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps((__m512)c, (__m512)d), _mm512_unpackhi_ps((__m512)c, (__m512)d));
  __m512d low = _mm512_unpacklo_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd));
  __m512d high = _mm512_unpackhi_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd));
  __m512 all = _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
  __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
  return (f32x4)_mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
#else
  return f32x4{sum(a), sum(b), sum(c), sum(d)};
#endif
}

typedef int32_t i32x4 __attribute__((vector_size(16)));
inline i32x4 sum4(i32x16 a, i32x16 b, i32x16 c, i32x16 d) {
#if LLMOS_AVX512
  __m512i x = (__m512i)a, y = (__m512i)b, z = (__m512i)c, w = (__m512i)d;
  __m512i xy = _mm512_add_epi32(_mm512_unpacklo_epi32(x, y), _mm512_unpackhi_epi32(x, y));
  __m512i zw = _mm512_add_epi32(_mm512_unpacklo_epi32(z, w), _mm512_unpackhi_epi32(z, w));
  __m512i all = _mm512_add_epi32(_mm512_unpacklo_epi64(xy, zw), _mm512_unpackhi_epi64(xy, zw));
  __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
  return (i32x4)_mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
#else
  i32x4 r{};
  for (int i = 0; i < LANES; i++) r += i32x4{a[i], b[i], c[i], d[i]};
  return r;
#endif
}

inline float largest(f32x16 v) {
  float r = v[0];
  for (int i = 1; i < LANES; i++) r = v[i] > r ? v[i] : r;
  return r;
}

inline float to_f32(float x) { return x; }
inline float to_f32(bf16 x) {
  uint32_t bits = (uint32_t)x.bits << 16;
  float r;
  std::memcpy(&r, &bits, 4);
  return r;
}
inline float to_f32(f16 x) {
  _Float16 h;
  std::memcpy(&h, &x.bits, 2);
  return (float)h;
}

// To nearest, ties to even; a NaN stays one.
inline void from_f32(float x, float& out) { out = x; }
inline void from_f32(float x, bf16& out) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  if (x != x) {
    out.bits = 0x7fc0;
  } else {
    out.bits = (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
  }
}
inline void from_f32(float x, f16& out) {
  _Float16 h = (_Float16)x;
  std::memcpy(&out.bits, &h, 2);
}

inline f32x16 load(const float* p) { return *(const f32x16u*)p; }
inline f32x16 load(const bf16* p) {
#if LLMOS_AVX512
  __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p));
  return (f32x16)_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
#else
  f32x16 r;
  for (int i = 0; i < LANES; i++) r[i] = to_f32(p[i]);
  return r;
#endif
}
inline f32x16 load(const f16* p) {
#if LLMOS_AVX512
  return (f32x16)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p));
#else
  f32x16 r;
  for (int i = 0; i < LANES; i++) r[i] = to_f32(p[i]);
  return r;
#endif
}

inline void store(float* p, f32x16 v) { *(f32x16u*)p = v; }
template <class T> inline void store(T* p, f32x16 v) {
  for (int i = 0; i < LANES; i++) from_f32(v[i], p[i]);
}
#if LLMOS_AVX512
inline void store(bf16* p, f32x16 v) {
  // the same rounding as the scalar one, without its branch
  __m512i bits = _mm512_castps_si512((__m512)v);
  __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  __mmask16 nan = _mm512_cmp_ps_mask((__m512)v, (__m512)v, _CMP_UNORD_Q);
  rounded = _mm512_mask_mov_epi32(rounded, nan, _mm512_set1_epi32(0x7fc00000));
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
}
#endif

// The first `count` < 16 elements, the others zero.
template <class T> inline f32x16 load_part(const T* p, int count) {
  T padded[LANES] = {};
  std::memcpy(padded, p, sizeof(T) * count);
  return load(padded);
}
template <class T> inline void store_part(T* p, f32x16 v, int count) {
  for (int i = 0; i < count; i++) from_f32(v[i], p[i]);
}

// e to the x, to about 2 units in the last place; 0 far below. Cephes' expf, on every lane.
inline f32x16 exp(f32x16 x) {
#if LLMOS_AVX512
  // a NaN is the second operand of both, and stays
  __m512 v = _mm512_min_ps(_mm512_set1_ps(89.0f), _mm512_max_ps(_mm512_set1_ps(-110.0f), (__m512)x));
  __m512 m = _mm512_roundscale_ps(_mm512_mul_ps(v, _mm512_set1_ps(1.44269504088896341f)),
                                  _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 t = _mm512_fnmadd_ps(m, _mm512_set1_ps(0.693359375f), v);
  t = _mm512_fmadd_ps(m, _mm512_set1_ps(2.12194440e-4f), t);
  __m512 q = _mm512_set1_ps(1.9875691500e-4f);
  q = _mm512_fmadd_ps(q, t, _mm512_set1_ps(1.3981999507e-3f));
  q = _mm512_fmadd_ps(q, t, _mm512_set1_ps(8.3334519073e-3f));
  q = _mm512_fmadd_ps(q, t, _mm512_set1_ps(4.1665795894e-2f));
  q = _mm512_fmadd_ps(q, t, _mm512_set1_ps(1.6666665459e-1f));
  q = _mm512_fmadd_ps(q, t, _mm512_set1_ps(5.0000001201e-1f));
  q = _mm512_add_ps(_mm512_fmadd_ps(q, _mm512_mul_ps(t, t), t), _mm512_set1_ps(1.0f));
  return (f32x16)_mm512_scalef_ps(q, m);
#else
  f32x16 low = splat(-87.3365f), high = splat(88.3762f);
  i32x16 under = x < low;
  x = x < low ? low : x;
  x = x > high ? high : x;
  f32x16 n = fma(x, splat(1.44269504088896341f), splat(12582912.0f)) - splat(12582912.0f);
  f32x16 r = fma(n, splat(-0.693359375f), x);
  r = fma(n, splat(2.12194440e-4f), r);
  f32x16 p = splat(1.9875691500e-4f);
  p = fma(p, r, splat(1.3981999507e-3f));
  p = fma(p, r, splat(8.3334519073e-3f));
  p = fma(p, r, splat(4.1665795894e-2f));
  p = fma(p, r, splat(1.6666665459e-1f));
  p = fma(p, r, splat(5.0000001201e-1f));
  p = fma(p, r * r, r) + splat(1.0f);
  i32x16 power = (__builtin_convertvector(n, i32x16) + 127) << 23;
  f32x16 scale;
  std::memcpy(&scale, &power, sizeof scale);
  p = p * scale;
  return under ? f32x16{} : p;
#endif
}

inline f32x16 tanh(f32x16 x) {
  // by the exponential of the negative magnitude: no overflow, small errors near zero are absolute
  f32x16 magnitude = x < 0 ? -x : x;
  f32x16 e = exp(magnitude * splat(-2.0f));
  f32x16 t = (splat(1.0f) - e) / (splat(1.0f) + e);
  return x < 0 ? -t : t;
}

}  // namespace llmos
