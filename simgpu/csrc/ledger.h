// The ledger of device memory: how many bytes this process has taken from the card, and what torch's statistics say of it.
//
// It owns no memory itself; blocks (block.h) take a seat in it before they exist and give it back when they go. What a
// block gives back stays reserved, for later blocks of this process, until empty_cache() or until the card is full, as
// with torch's caching allocators. By default any reserved byte serves any later block; on request the memory is cut into
// segments and pieces (cache.h), and then fragments.
#pragma once

#include "cache.h"
#include "shared/state.h"
#include "timeline.h"

#include <c10/core/CachingDeviceAllocator.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>

namespace simgpu {

enum class IfFull { Refuse, TakeAnyway };

class Ledger {
 public:
  // A block's place in the ledger.
  struct Seat {
    size_t bytes = 0; // as requested
    size_t given = 0; // what it occupies
    Cache::Piece* piece = nullptr; // null without fragmentation
  };

  static Ledger& instance();

  // The card that this process computes on; only while no memory is taken.
  void open(const std::string& name, const shared::Model& model);
  // At the end of the process: what is given back after that counts nowhere.
  void leave_card();

  // Takes `bytes` (rounded up to kGranule), or throws c10::OutOfMemoryError and takes nothing.
  Seat take(size_t bytes, uint32_t stream);
  // Takes `bytes` even where the card is full: for memory that exists already.
  Seat take_anyway(size_t bytes, uint32_t stream);
  // The bytes can be taken again once the host's clock has passed `until`.
  void give_back(const Seat& seat, Nanoseconds until) noexcept;
  // Throws the out-of-memory error that `take(bytes)` throws on a full card.
  [[noreturn]] void refuse(size_t bytes);
  // Gives what is reserved and not in use back to the card.
  void empty_cache();

  void set_fragmentation(bool on); // only while no memory is taken
  void set_capacity(size_t bytes);
  size_t capacity();
  size_t free();

  c10::CachingDeviceAllocator::DeviceStats statistics();
  void reset_accumulated();
  void reset_peak();

  // For the engine: these take no lock of the ledger's.
  shared::Link link() const;
  void report(Nanoseconds compute_busy, Nanoseconds copy_busy, Nanoseconds now);

  // Sizes are counted in multiples of this, and blocks are aligned to it, as on CUDA.
  static constexpr size_t kGranule = 512;
  static size_t rounded(size_t bytes) {
    return (bytes + kGranule - 1) / kGranule * kGranule;
  }

 private:
  struct Leaving {
    Nanoseconds until;
    Seat seat;
  };

  using Stats = c10::CachingAllocator::StatArray;

  std::optional<Seat> try_to_take(size_t bytes, uint32_t stream, IfFull if_full);
  bool place(Seat& seat, uint32_t stream, IfFull if_full);
  bool grow(size_t bytes, bool small, IfFull if_full);
  void shrink(size_t bytes, bool small);
  void enter(const Seat& seat);
  void leave(const Seat& seat);
  void let_leave();
  std::array<Stats*, 7> all_stats();

  shared::Card card_;
  std::mutex mutex_; // guards everything below
  bool fragmentation_ = false;
  Cache cache_;
  std::deque<Leaving> leaving_;
  Stats blocks_{}, active_blocks_{}, segments_{};
  Stats bytes_{}, active_{}, reserved_{}, requested_{};
  int64_t refusals_ = 0;
  int64_t retries_ = 0;
};

} // namespace simgpu
