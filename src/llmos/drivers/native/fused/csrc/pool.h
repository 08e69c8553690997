// Threads that share the items of one phase after another.
//
// Items are taken from a counter, not dealt out beforehand: where another process takes a core away,
// the threads that still run take the rest, and only the item in hand is waited for. Between the
// phases of a forward a thread spins for a bounded time, since the next phase follows in
// microseconds; between forwards it sleeps, since the cores belong to the server and its clients.
// Which thread takes an item never decides what is computed.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>
#include <type_traits>
#include <vector>


namespace llmos {

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

class Pool {
 public:
  Pool(int num_threads, int spin_us) : spin_us_(spin_us) {
    for (int i = 1; i < num_threads; i++) threads_.emplace_back([this, i] { work(i); });
  }

  ~Pool() {
    stop_.store(true);
    open_phase(nullptr, 0);
    for (auto& thread : threads_) thread.join();
  }

  int num_threads() const { return (int)threads_.size() + 1; }

  // Calls `item(i, thread)` for all i below `count`; returns when all have returned.
  template <class F> void run(int count, F&& item) {
    if (count <= 0) return;
    if (threads_.empty() || count == 1) {
      for (int i = 0; i < count; i++) item(i, 0);
      return;
    }
    auto call = [](void* context, int i, int thread) { (*(std::remove_reference_t<F>*)context)(i, thread); };
    call_ = call;
    open_phase((void*)&item, count);
    take_items(left_.load(std::memory_order_relaxed) >> 32, 0);
    // the last items may be with others
    for (long spins = 0; num_busy_.load(std::memory_order_acquire) != 0; spins++) {
      if (spins < 20000) relax(); else std::this_thread::yield();
    }
  }

 private:
  using Call = void (*)(void*, int, int);

  // One word holds the phase's number (high half) and how many items nobody has taken (low half).
  // Whoever lowers it by a compare-and-swap owns an item, and `run` of that phase cannot return
  // before `num_busy_` is lowered: until then the other members are those of this phase.
  void open_phase(void* context, int count) {
    context_ = context;
    count_ = count;
    uint64_t phase = (left_.load(std::memory_order_relaxed) >> 32) + 1;
    left_.store(phase << 32 | (uint32_t)count, std::memory_order_seq_cst);
    if (num_asleep_.load(std::memory_order_seq_cst) > 0) left_.notify_all();
  }

  void take_items(uint64_t phase, int thread) {
    uint64_t left = left_.load(std::memory_order_acquire);
    while (left >> 32 == phase && (uint32_t)left != 0) {
      if (left_.compare_exchange_weak(left, left - 1, std::memory_order_acq_rel)) {
        call_(context_, count_ - (int)(uint32_t)left, thread);
        left = left_.load(std::memory_order_acquire);
      }
    }
  }

  void work(int thread) {
    for (uint64_t seen = 0;;) {
      uint64_t phase = await(seen);
      if (stop_.load()) return;
      num_busy_.fetch_add(1, std::memory_order_seq_cst);
      take_items(phase, thread);
      num_busy_.fetch_sub(1, std::memory_order_release);
      seen = phase;
    }
  }

  uint64_t await(uint64_t seen) {
    auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(spin_us_);
    for (int spins = 1;; spins++) {
      uint64_t left = left_.load(std::memory_order_acquire);
      if (left >> 32 != seen) return left >> 32;
      relax();
      if (spins % 64 == 0 && std::chrono::steady_clock::now() >= until) break;
    }
    num_asleep_.fetch_add(1, std::memory_order_seq_cst);
    uint64_t left = left_.load(std::memory_order_seq_cst);
    for (; left >> 32 == seen; left = left_.load(std::memory_order_seq_cst)) left_.wait(left);
    num_asleep_.fetch_sub(1, std::memory_order_seq_cst);
    return left >> 32;
  }

  std::vector<std::thread> threads_;
  int spin_us_;
  Call call_ = nullptr;
  void* context_ = nullptr;
  int count_ = 0;
  alignas(64) std::atomic<uint64_t> left_{0};
  alignas(64) std::atomic<int> num_busy_{0};
  alignas(64) std::atomic<int> num_asleep_{0};
  std::atomic<bool> stop_{false};
};

}  // namespace llmos
