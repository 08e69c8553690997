// A decoder's forward over the rows of a step, and the functions that Python calls.
#include <algorithm>
#include <memory>
#include <new>

#include "model.h"
#include "pool.h"

namespace llmos {

constexpr int64_t ALIGN = 64;
constexpr int FEW_ROWS = 8;          // so little work per row that threads would only wait for each other
constexpr int64_t CHUNK_BYTES = 96 << 10;  // of weights, per item of a product
constexpr int QUERY_ROWS = 24;       // queries that share one reading of keys and values

struct Buffer {
  std::unique_ptr<char[]> room;
  char* data = nullptr;
  void reserve(int64_t bytes) {
    room.reset(new char[bytes + ALIGN]());
    data = (char*)(((uintptr_t)room.get() + ALIGN - 1) / ALIGN * ALIGN);
  }
  float* floats() { return (float*)data; }
};

// Scratch of one thread for one item of attention.
struct Corner {
  Buffer q, out, scores, top, total, positions;
};

class Engine {
 public:
  Engine(const Model& model, int num_threads, int spin_us) : m_(model), pool_(num_threads, spin_us) {
    int64_t rows = m_.max_rows, widest = m_.hidden, qkv = 0, inner = 0, operand = 0;
    int padded = 0, group = 1;
    auto see = [&](const Linear& l) {
      if (l.w.data) operand = std::max(operand, operand_stride(l.w.kind, l.w.cols));
    };
    for (int i = 0; i < m_.num_layers; i++) {
      const Layer& l = m_.layers[i];
      qkv = std::max<int64_t>(qkv, l.q.w.rows + l.k.w.rows + l.v.w.rows);
      inner = std::max<int64_t>(inner, l.up.w.rows);
      widest = std::max<int64_t>(widest, l.q.w.rows);
      padded = std::max(padded, l.heads.padded);
      group = std::max(group, l.heads.num_heads / l.heads.num_kv_heads);
      for (const Linear* p : {&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down}) see(*p);
    }
    see(m_.head);
    operand = round_up(operand, ALIGN);
    x_.reserve(rows * m_.hidden * 4);
    y_.reserve(rows * m_.hidden * 4);
    z_.reserve(rows * m_.hidden * 4);
    attended_.reserve(rows * widest * 4);
    qkv_.reserve(rows * qkv * 4);
    gate_.reserve(rows * inner * 4);
    up_.reserve(rows * inner * 4);
    for (Operands* o : {&a_, &b_}) {
      o->data.reserve(round_up(rows, 16) * operand);
      o->scale.reserve(rows * 4);
      o->sums.reserve(rows * 4);
    }
    corners_.resize(pool_.num_threads());
    int64_t queries = std::max(QUERY_ROWS, group);
    for (Corner& c : corners_) {
      c.q.reserve(queries * padded * 4);
      c.out.reserve(queries * padded * 4);
      c.scores.reserve(queries * BLOCK * 4);
      c.top.reserve(queries * 4);
      c.total.reserve(queries * 4);
      c.positions.reserve(queries * 8);
    }
  }

  void forward(const Step& step) {
    segment_of_.resize(step.num_rows);
    for (int s = 0; s < step.num_segments; s++)
      std::fill_n(segment_of_.begin() + step.segments[s].row, step.segments[s].num_rows, s);
    embed(step);
    for (int i = 0; i < m_.num_layers; i++) run_layer(m_.layers[i], step);
    run_head(step);
  }

  void draw_all(const float* logits, int64_t stride, int count, const Draw* how, int32_t* tokens) {
    pool_.run(count, [&](int i, int) {
      thread_local std::vector<float> probs;
      if (!how[i].greedy) probs.resize(m_.vocab);
      tokens[i] = draw(logits + i * stride, m_.vocab, how[i], probs.data());
    });
  }

 private:
  struct Operands {
    Buffer data, scale, sums;
    Operand of(Kind kind, int64_t cols) {
      return {data.data, scale.floats(), (int32_t*)sums.data, round_up(operand_stride(kind, cols), ALIGN)};
    }
  };

  // Calls `f(row)` for all rows, a few at a time.
  template <class F> void each_row(int rows, F&& f) {
    int per = std::max(FEW_ROWS, (rows + 4 * pool_.num_threads() - 1) / (4 * pool_.num_threads()));
    pool_.run((rows + per - 1) / per, [&](int i, int) {
      for (int r = i * per; r < std::min(rows, (i + 1) * per); r++) f(r);
    });
  }

  void embed(const Step& step) {
    int64_t hidden = m_.hidden;
    each_row(step.num_rows, [&](int r) {
      float* x = x_.floats() + r * hidden;
      read_row(m_.embed, step.tokens[r], x);
      for (int64_t d = 0; d < hidden; d++) x[d] *= m_.embed_scale;
      if (m_.positions.data) {
        const Segment& seg = step.segments[segment_of_[r]];
        float* position = z_.floats() + r * hidden;
        read_row(m_.positions, seg.start + (r - seg.row) + m_.position_offset, position);
        add(x, position, 1.0f);
      }
      if (m_.embed_norm.kind != NormKind::NONE) normalize(m_.embed_norm, x, x, hidden);
    });
  }

  static void read_row(const Matrix& w, int64_t n, float* out) {
    const char* row = (const char*)w.data + n * w.stride;
    for (int d = 0; d < w.cols; d++) switch (w.kind) {
      case Kind::F32: out[d] = ((const float*)row)[d]; break;
      case Kind::BF16: out[d] = to_f32(((const bf16*)row)[d]); break;
      case Kind::F16: out[d] = to_f32(((const f16*)row)[d]); break;
      default: out[d] = 0;
    }
  }

  // rows of x, normalised, as operand of `next`
  Operand prepare(Operands& to, const Norm& norm, const Linear& next, const float* x, int64_t size, int rows) {
    Operand op = to.of(next.w.kind, next.w.cols);
    each_row(rows, [&](int r) {
      const float* row = x + r * size;
      if (norm.kind == NormKind::NONE) return make_operand(next.w.kind, op, r, row, size);
      thread_local std::vector<float> normed;
      normed.resize(size);
      normalize(norm, row, normed.data(), size);
      make_operand(next.w.kind, op, r, normed.data(), size);
    });
    return op;
  }

  // One phase of several products of the same rows. `then(i, begin, end, part)` follows each piece.
  template <class F>
  void products(std::initializer_list<const Linear*> ls, const Operand* ops, float** outs, const int64_t* strides,
                int rows, F&& then) {
    int firsts[5] = {0}, sizes[4], count = 0;
    for (const Linear* l : ls) {
      int64_t by_bytes = std::max<int64_t>(NB, CHUNK_BYTES / std::max<int64_t>(1, l->w.stride) / NB * NB);
      int64_t by_threads = round_up((l->w.rows + 8 * pool_.num_threads() - 1) / (8 * pool_.num_threads()), NB);
      sizes[count] = (int)std::min(by_bytes, std::max<int64_t>(by_threads, 2 * NB));
      firsts[count + 1] = firsts[count] + (l->w.rows + sizes[count] - 1) / sizes[count];
      count++;
    }
    pool_.run(firsts[count], [&](int item, int) {
      int p = 0;
      while (item >= firsts[p + 1]) p++;
      const Linear& l = **(ls.begin() + p);
      int begin = (item - firsts[p]) * sizes[p], end = std::min(l.w.rows, begin + sizes[p]);
      piece(l, begin, end, ops[p], rows, outs[p], strides[p]);
      then(p, begin, end);
    });
  }

  static void piece(const Linear& l, int begin, int end, const Operand& x, int rows, float* out, int64_t stride) {
    int whole = begin + (end - begin) / NB * NB;
    if (whole > begin) multiply(l.w, begin, whole, x, 0, rows, out + begin, stride);
    if (whole < end) {  // a matrix whose rows are no multiple of NB: its last ones once more, apart
      thread_local std::vector<float> apart;
      apart.resize((size_t)rows * NB);
      multiply(l.w, end - NB, end, x, 0, rows, apart.data(), NB);
      for (int r = 0; r < rows; r++)
        for (int n = whole; n < end; n++) out[r * stride + n] = apart[(size_t)r * NB + (n - (end - NB))];
    }
    if (l.bias)
      for (int r = 0; r < rows; r++)
        for (int n = begin; n < end; n++) out[r * stride + n] += l.bias[n];
  }

  void run_layer(const Layer& l, const Step& step) {
    int rows = step.num_rows;
    int64_t hidden = m_.hidden;
    float* x = x_.floats();
    Operand in = prepare(a_, l.pre_attn, l.q, x, hidden, rows);
    int64_t nq = l.q.w.rows, nk = l.k.w.rows, nv = l.v.w.rows, width = nq + nk + nv;
    float* qkv = qkv_.floats();
    {
      Operand ops[] = {in, in, in};
      float* outs[] = {qkv, qkv + nq, qkv + nq + nk};
      int64_t strides[] = {width, width, width};
      products({&l.q, &l.k, &l.v}, ops, outs, strides, rows, [](int, int, int) {});
    }
    switch (m_.kv_kind) {
      case Kind::F32: attend_all<float>(l, step, width); break;
      case Kind::F16: attend_all<f16>(l, step, width); break;
      default: attend_all<bf16>(l, step, width);
    }
    Operand attended = prepare(b_, Norm{}, l.o, attended_.floats(), nq, rows);
    float* branch = y_.floats();  // what attention adds
    bool direct = l.post_attn.kind == NormKind::NONE && !l.parallel;
    project(l.o, attended, branch, rows, direct ? x : nullptr, l.residual_scale);
    if (!direct) {
      each_row(rows, [&](int r) {
        if (l.post_attn.kind != NormKind::NONE)
          normalize(l.post_attn, branch + r * hidden, branch + r * hidden, hidden);
        if (!l.parallel) add(x + r * hidden, branch + r * hidden, l.residual_scale);
      });
    }
    Operand mlp_in = prepare(a_, l.pre_mlp, l.up, x, hidden, rows);
    int64_t inner = l.up.w.rows;
    run_up(l, mlp_in, rows);
    Operand h = prepare(b_, Norm{}, l.down, up_.floats(), inner, rows);
    bool straight = l.post_mlp.kind == NormKind::NONE && !l.parallel;
    float* second = z_.floats();
    project(l.down, h, second, rows, straight ? x : nullptr, l.residual_scale);
    if (!straight) {
      each_row(rows, [&](int r) {
        float* mine = second + r * hidden;
        if (l.post_mlp.kind != NormKind::NONE) normalize(l.post_mlp, mine, mine, hidden);
        if (l.parallel) add(mine, branch + r * hidden, 1.0f);
        add(x + r * hidden, mine, l.residual_scale);
      });
    }
  }

  void add(float* to, const float* from, float scale) const {
    for (int64_t d = 0; d < m_.hidden; d++) to[d] += from[d] * scale;
  }

  // out = l(op); with `onto`: added to it, scaled, by whoever made the piece
  void project(const Linear& l, const Operand& op, float* out, int rows, float* onto, float scale) {
    int64_t stride = l.w.rows;
    float* outs[] = {out};
    products({&l}, &op, outs, &stride, rows, [&](int, int begin, int end) {
      for (int r = 0; r < rows && onto; r++)
        for (int n = begin; n < end; n++) onto[r * stride + n] += out[r * stride + n] * scale;
    });
  }

  void run_up(const Layer& l, const Operand& op, int rows) {
    int64_t inner = l.up.w.rows;
    float* up = up_.floats();
    float* gate = gate_.floats();
    if (!l.gate.w.data) {
      float* outs[] = {up};
      products({&l.up}, &op, outs, &inner, rows, [&](int, int begin, int end) {
        for (int r = 0; r < rows; r++) combine(l.activation, nullptr, up + r * inner + begin, up + r * inner + begin, end - begin);
      });
      return;
    }
    // a piece of the gate and the same piece of up are one item: their product is made on the spot
    int64_t by_bytes = std::max<int64_t>(NB, CHUNK_BYTES / 2 / std::max<int64_t>(1, l.up.w.stride) / NB * NB);
    int64_t by_threads = round_up((inner + 8 * pool_.num_threads() - 1) / (8 * pool_.num_threads()), NB);
    int size = (int)std::min(by_bytes, std::max<int64_t>(by_threads, 2 * NB));
    pool_.run((int)((inner + size - 1) / size), [&](int i, int) {
      int begin = i * size, end = (int)std::min<int64_t>(inner, begin + size);
      piece(l.gate, begin, end, op, rows, gate, inner);
      piece(l.up, begin, end, op, rows, up, inner);
      for (int r = 0; r < rows; r++)
        combine(l.activation, gate + r * inner + begin, up + r * inner + begin, up + r * inner + begin, end - begin);
    });
  }

  template <class T> void attend_all(const Layer& l, const Step& step, int64_t width) {
    const Heads& heads = l.heads;
    PagedLayer<T> kv{(T*)l.kv, &heads};
    float* qkv = qkv_.floats();
    int64_t nq = l.q.w.rows, nk = l.k.w.rows;
    // keys and values of the whole step first: rows of one request read each other's
    each_row(step.num_rows, [&](int r) {
      const Segment& seg = step.segments[segment_of_[r]];
      int64_t position = seg.start + (r - seg.row);
      float* q = qkv + (int64_t)r * width;
      float* k = q + nq;
      float* v = k + nk;
      turn(l, q, heads.num_heads, l.q_norm, position);
      turn(l, k, heads.num_kv_heads, l.k_norm, position);
      if (l.clip > 0) clamp(v, (int64_t)heads.num_kv_heads * heads.size, l.clip);
      for (int h = 0; h < heads.num_kv_heads; h++)
        write_kv(kv, seg.pages[position / PAGE], (int)(position % PAGE), h, k + (int64_t)h * heads.size,
                 v + (int64_t)h * heads.size);
    });
    int group = heads.num_heads / heads.num_kv_heads;
    int per = std::max(1, QUERY_ROWS / group);
    items_.clear();
    for (int s = 0; s < step.num_segments; s++)
      for (int h = 0; h < heads.num_kv_heads; h++)
        for (int i = 0; i < step.segments[s].num_rows; i += per)
          items_.push_back({s, h, i, std::min(per, step.segments[s].num_rows - i)});
    pool_.run((int)items_.size(), [&](int i, int thread) { attend_item(l, kv, step, width, items_[i], corners_[thread]); });
  }

  struct Item {
    int segment, head, first, count;
  };

  template <class T>
  void attend_item(const Layer& l, const PagedLayer<T>& kv, const Step& step, int64_t width, const Item& item, Corner& c) {
    const Heads& heads = l.heads;
    const Segment& seg = step.segments[item.segment];
    int group = heads.num_heads / heads.num_kv_heads, padded = heads.padded;
    Queries q{c.q.floats(), c.out.floats(), c.scores.floats(), c.top.floats(), c.total.floats(),
              (int64_t*)c.positions.data, item.count * group};
    for (int i = 0, r = 0; i < item.count; i++)
      for (int g = 0; g < group; g++, r++) {
        const float* from = qkv_.floats() + (int64_t)(seg.row + item.first + i) * width +
                            (int64_t)(item.head * group + g) * heads.size;
        for (int d = 0; d < heads.size; d++) q.q[(int64_t)r * padded + d] = from[d] * heads.scale;
        q.positions[r] = seg.start + item.first + i;
      }
    attend(kv, seg.pages, item.head, q);
    for (int i = 0, r = 0; i < item.count; i++)
      for (int g = 0; g < group; g++, r++) {
        float* to = attended_.floats() + (int64_t)(seg.row + item.first + i) * l.q.w.rows +
                    (int64_t)(item.head * group + g) * heads.size;
        std::memcpy(to, q.out + (int64_t)r * padded, heads.size * 4);
      }
  }

  static void clamp(float* x, int64_t size, float most) {
    for (int64_t d = 0; d < size; d++) x[d] = x[d] != x[d] ? x[d] : std::clamp(x[d], -most, most);
  }

  // Queries or keys of one token: clamped, normalised, rotated.
  static void turn(const Layer& l, float* x, int num_heads, const Norm& norm, int64_t position) {
    int size = l.heads.size;
    if (l.clip > 0) clamp(x, (int64_t)num_heads * size, l.clip);
    for (int pass = 0; pass < 2; pass++) {
      if (pass == l.norm_after_rope) norm_heads(l, x, num_heads, norm);
      else if (l.rope.cos)
        for (int h = 0; h < num_heads; h++) rotate(l.rope, position, x + (int64_t)h * size);
    }
  }

  static void norm_heads(const Layer& l, float* x, int num_heads, const Norm& norm) {
    int size = l.heads.size;
    if (norm.kind == NormKind::NONE) return;
    if (l.norm_over == NormOver::ALL) return normalize(norm, x, x, (int64_t)num_heads * size);
    for (int h = 0; h < num_heads; h++) {
      Norm own = norm;
      if (l.norm_over == NormOver::EACH) {
        own.weight = norm.weight ? norm.weight + (int64_t)h * size : nullptr;
        own.bias = norm.bias ? norm.bias + (int64_t)h * size : nullptr;
      }
      normalize(own, x + (int64_t)h * size, x + (int64_t)h * size, size);
    }
  }

  void run_head(const Step& step) {
    int rows = step.num_wanted;
    if (rows == 0) return;
    float* picked = y_.floats();
    for (int i = 0; i < rows; i++)
      std::memcpy(picked + (int64_t)i * m_.hidden, x_.floats() + (int64_t)step.wanted[i] * m_.hidden, m_.hidden * 4);
    Operand op = prepare(a_, m_.final_norm, m_.head, picked, m_.hidden, rows);
    int64_t stride = m_.vocab;
    float* outs[] = {step.logits};
    float scale = m_.logit_scale, cap = m_.logit_softcap;
    products({&m_.head}, &op, outs, &stride, rows, [&](int, int begin, int end) {
      if (scale == 1.0f && cap == 0.0f) return;
      for (int r = 0; r < rows; r++)
        for (int n = begin; n < end; n++) {
          float& y = step.logits[r * stride + n];
          y *= scale;
          if (cap > 0) y = std::tanh(y / cap) * cap;
        }
    });
  }

  Model m_;
  Pool pool_;
  Buffer x_, y_, z_, attended_, qkv_, gate_, up_;
  Operands a_, b_;
  std::vector<Corner> corners_;
  std::vector<Item> items_;
  std::vector<int> segment_of_;  // by row of the step
};

}  // namespace llmos

// Every function returns null or a text that says what is wrong; none throws.
#define EXPORT __attribute__((visibility("default")))

extern "C" {

// Features of the machine that this library was compiled for, for a look at what it uses.
EXPORT const char* llmos_features() {
  return ""
#if LLMOS_AVX512
         " avx512"
#endif
#if LLMOS_AMX
         " amx_bf16"
#endif
#if __AVX512BF16__
         " avx512_bf16"
#endif
#if __AVX512VNNI__
         " avx512_vnni"
#endif
#if __ARM_NEON
         " neon"
#endif
      ;
}

EXPORT int64_t llmos_sizes(int which) {
  switch (which) {
    case 0: return sizeof(llmos::Model);
    case 1: return sizeof(llmos::Layer);
    case 2: return sizeof(llmos::Segment);
    case 3: return sizeof(llmos::Step);
    case 4: return sizeof(llmos::Draw);
    default: return llmos::PAGE;
  }
}

EXPORT const char* llmos_open(const llmos::Model* model, int num_threads, int spin_us, llmos::Engine** out) try {
  static const bool tiles = llmos::tiles_on = llmos::tiles_work();
  (void)tiles;
  *out = new llmos::Engine(*model, num_threads, spin_us);
  return nullptr;
} catch (const std::bad_alloc&) {
  return "out of memory";
} catch (const std::exception&) {
  return "threads could not be started";
}

EXPORT void llmos_close(llmos::Engine* engine) { delete engine; }

EXPORT const char* llmos_forward(llmos::Engine* engine, const llmos::Step* step) try {
  engine->forward(*step);
  return nullptr;
} catch (const std::bad_alloc&) {
  return "out of memory";
}

EXPORT const char* llmos_draw(llmos::Engine* engine, const float* logits, int64_t stride, int count,
                       const llmos::Draw* how, int32_t* tokens) try {
  engine->draw_all(logits, stride, count, how, tokens);
  return nullptr;
} catch (const std::bad_alloc&) {
  return "out of memory";
}
}
