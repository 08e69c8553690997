// Products of bf16 on AMX: tiles of sixteen weight rows, as they lie in the file, by sixteen rows of
// activations, which are laid out for it. All widths go through tiles, the narrow ones as well: their
// additions are in an order of their own, and a row's bits may not depend on who is beside it.
//
// Where LLMOS_EMULATE_AMX is defined, tiles are arrays: so layouts and loops are tested on any machine.
#pragma once

#include "simd.h"

#if LLMOS_EMULATE_AMX || (__AMX_TILE__ && __AMX_BF16__ && defined(__linux__))
#define LLMOS_AMX 1

#if !LLMOS_EMULATE_AMX
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace llmos {

constexpr int TILE = 16;        // rows of a tile, and columns of a result
constexpr int TILE_STEP = 32;   // elements of K in a tile
constexpr int TILE_BYTES = 1024;

#if LLMOS_EMULATE_AMX
struct Tile { alignas(64) char bytes[TILE][64]; };
inline thread_local Tile tiles[8];
inline thread_local uint8_t tile_rows[8];
struct TileConfig { uint8_t palette, start; uint8_t reserved[14]; uint16_t colsb[16]; uint8_t rows[16]; };
inline void tile_configure(const TileConfig& c) { for (int i = 0; i < 8; i++) tile_rows[i] = c.rows[i]; }
inline void tile_release() {}
template <int T> inline void tile_zero() { tiles[T] = Tile{}; }
template <int T> inline void tile_load(const void* p, int64_t stride) {
  tiles[T] = Tile{};
  for (int r = 0; r < tile_rows[T]; r++) std::memcpy(tiles[T].bytes[r], (const char*)p + r * stride, 64);
}
template <int T> inline void tile_store(void* p, int64_t stride) {
  for (int r = 0; r < tile_rows[T]; r++) std::memcpy((char*)p + r * stride, tiles[T].bytes[r], 64);
}
template <int C, int A, int B> inline void tile_dot() {
  for (int n = 0; n < tile_rows[A]; n++)
    for (int k = 0; k < TILE; k++)
      for (int m = 0; m < TILE; m++)
        for (int half = 0; half < 2; half++)
          ((float*)tiles[C].bytes[n])[m] += to_f32(((bf16*)tiles[A].bytes[n])[2 * k + half]) *
                                            to_f32(((bf16*)tiles[B].bytes[k])[2 * m + half]);
}
inline bool amx_allowed() { return true; }
#else
struct TileConfig { uint8_t palette, start; uint8_t reserved[14]; uint16_t colsb[16]; uint8_t rows[16]; };
inline void tile_configure(const TileConfig& c) { _tile_loadconfig(&c); }
inline void tile_release() { _tile_release(); }
template <int T> inline void tile_zero() { _tile_zero(T); }
template <int T> inline void tile_load(const void* p, int64_t stride) { _tile_loadd(T, p, stride); }
template <int T> inline void tile_store(void* p, int64_t stride) { _tile_stored(T, p, stride); }
template <int C, int A, int B> inline void tile_dot() { _tile_dpbf16ps(C, A, B); }
// The system has to be asked once a process: tiles make a thread's state larger.
inline bool amx_allowed() {
  constexpr long REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;
  static const bool allowed = syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
  return allowed;
}
#endif

// Activations: of each sixteen rows, for each 32 elements of K, sixteen pairs by sixteen rows.
inline int64_t tile_operand_bytes(int64_t rows, int64_t cols) {
  return (rows + TILE - 1) / TILE * ((cols + TILE_STEP - 1) / TILE_STEP) * TILE_BYTES;
}

inline void make_tile_operand(char* data, int64_t row, const float* x, int64_t cols) {
  int64_t num_steps = (cols + TILE_STEP - 1) / TILE_STEP;
  char* group = data + row / TILE * num_steps * TILE_BYTES + row % TILE * 4;
  for (int64_t pair = 0; pair < num_steps * TILE; pair++) {
    bf16 both[2] = {};
    for (int half = 0; half < 2; half++)
      if (2 * pair + half < cols) from_f32(x[2 * pair + half], both[half]);
    std::memcpy(group + pair * 64, both, 4);
  }
}

inline TileConfig tile_config(int last_rows) {
  // 0-3 results, 4-5 weights, 6-7 activations; odd numbers of weights' and results' pairs may be short
  TileConfig c{};
  c.palette = 1;
  for (int t = 0; t < 8; t++) {
    c.colsb[t] = 64;
    c.rows[t] = (uint8_t)(t == 2 || t == 3 || t == 5 ? last_rows : TILE);
  }
  return c;
}

// Weight rows n .. n + TILE (+ `second` more) by rows m .. of activations; PAIR: two groups of them.
template <bool SECOND, bool PAIR>
inline void tile_block(const char* w, int64_t stride, int64_t cols, int second, const char* x, int64_t group_bytes,
                       int num_rows, float* out, int64_t out_stride) {
  tile_zero<0>();
  if constexpr (PAIR) tile_zero<1>();
  if constexpr (SECOND) tile_zero<2>();
  if constexpr (SECOND && PAIR) tile_zero<3>();
  alignas(64) char rest[2 * TILE][64];
  int64_t whole = cols / TILE_STEP, num_steps = (cols + TILE_STEP - 1) / TILE_STEP;
  for (int64_t s = 0; s < num_steps; s++) {
    const char* from = w + s * 64;
    int64_t step = stride;
    if (s == whole) {  // a row ends before the tile does
      std::memset(rest, 0, sizeof rest);
      for (int r = 0; r < TILE + (SECOND ? second : 0); r++)
        std::memcpy(rest[r], from + r * stride, (size_t)(cols - whole * TILE_STEP) * 2);
      from = rest[0];
      step = 64;
    }
    tile_load<4>(from, step);
    if constexpr (SECOND) tile_load<5>(from + TILE * step, step);
    tile_load<6>(x + s * TILE_BYTES, 64);
    if constexpr (PAIR) tile_load<7>(x + group_bytes + s * TILE_BYTES, 64);
    tile_dot<0, 4, 6>();
    if constexpr (PAIR) tile_dot<1, 4, 7>();
    if constexpr (SECOND) tile_dot<2, 5, 6>();
    if constexpr (SECOND && PAIR) tile_dot<3, 5, 7>();
  }
  alignas(64) float result[2 * TILE][2 * TILE];
  tile_store<0>(&result[0][0], sizeof result[0]);
  if constexpr (PAIR) tile_store<1>(&result[0][TILE], sizeof result[0]);
  if constexpr (SECOND) tile_store<2>(&result[TILE][0], sizeof result[0]);
  if constexpr (SECOND && PAIR) tile_store<3>(&result[TILE][TILE], sizeof result[0]);
  int columns = TILE + (SECOND ? second : 0);
  for (int m = 0; m < num_rows; m++)
    for (int n = 0; n < columns; n++) out[m * out_stride + n] = result[n][m];
}

// Weight rows [n, n_end), of any number, by rows [0, m_end).
inline void multiply_tiles(const char* w, int64_t stride, int64_t cols, int64_t n, int64_t n_end, const char* x,
                           int64_t m_end, float* out, int64_t out_stride) {
  int64_t group_bytes = (cols + TILE_STEP - 1) / TILE_STEP * TILE_BYTES;
  while (n < n_end) {
    int left = (int)(n_end - n);
    // fewer rows than a tile has: a block whose second half is all there is would need a first one
    alignas(64) thread_local std::vector<char> few;
    const char* from = w + n * stride;
    int64_t step = stride;
    if (left < TILE) {
      few.assign((size_t)(TILE * stride), 0);
      std::memcpy(few.data(), from, (size_t)(left - 1) * stride + cols * 2);
      from = few.data();
    }
    int second = left > TILE ? (left < 2 * TILE ? left - TILE : TILE) : 0;
    tile_configure(tile_config(second ? second : TILE));
    for (int64_t m = 0; m < m_end; m += 2 * TILE) {
      int rows = (int)(m_end - m < 2 * TILE ? m_end - m : 2 * TILE);
      const char* group = x + m / TILE * group_bytes;
      float narrow[2 * TILE][TILE];
      float* to = left < TILE ? &narrow[0][0] : out + m * out_stride;
      int64_t to_stride = left < TILE ? TILE : out_stride;
      if (rows > TILE && second) tile_block<true, true>(from, step, cols, second, group, group_bytes, rows, to, to_stride);
      else if (rows > TILE) tile_block<false, true>(from, step, cols, 0, group, group_bytes, rows, to, to_stride);
      else if (second) tile_block<true, false>(from, step, cols, second, group, group_bytes, rows, to, to_stride);
      else tile_block<false, false>(from, step, cols, 0, group, group_bytes, rows, to, to_stride);
      if (left < TILE)
        for (int r = 0; r < rows; r++) std::memcpy(out + (m + r) * out_stride, narrow[r], (size_t)left * 4);
    }
    int done = left < TILE ? left : TILE + second;
    n += done;
    out += done;
  }
  tile_release();
}

}  // namespace llmos
#else
namespace llmos {
inline bool amx_allowed() { return false; }
}  // namespace llmos
#endif
