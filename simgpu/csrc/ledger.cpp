#include "ledger.h"

#include "engine.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <utility>

namespace simgpu {
namespace {

std::string spelled(size_t bytes) {
  static const char* const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  for (; value >= 1024 && unit < 4; ++unit) {
    value /= 1024;
  }
  char text[64];
  std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.2f %s", value, units[unit]);
  return std::string(text) + (unit == 0 ? "" : " (" + std::to_string(bytes) + " bytes)");
}

using Stats = c10::CachingAllocator::StatArray;
using c10::CachingAllocator::StatType;
constexpr auto kAll = static_cast<size_t>(StatType::AGGREGATE);

size_t current(const Stats& stats) {
  return static_cast<size_t>(stats[kAll].current);
}

size_t pool(bool small) {
  return static_cast<size_t>(small ? StatType::SMALL_POOL : StatType::LARGE_POOL);
}

void increase(Stats& stats, bool small, size_t amount) {
  stats[kAll].increase(amount);
  stats[pool(small)].increase(amount);
}

void decrease(Stats& stats, bool small, size_t amount) {
  stats[kAll].decrease(amount);
  stats[pool(small)].decrease(amount);
}

} // namespace

Ledger& Ledger::instance() {
  static Ledger* ledger = new Ledger(); // never destroyed: blocks may outlive every static
  return *ledger;
}

void Ledger::open(const std::string& name, const shared::Model& model) {
  empty_cache();
  std::lock_guard<std::mutex> lock(mutex_);
  TORCH_CHECK(
      current(reserved_) == 0,
      "simgpu: the card cannot be changed while ",
      spelled(current(active_)),
      " of it are in use: delete the tensors on it first, and synchronize");
  card_ = shared::Card(); // leave the old one before the new one is made
  card_ = shared::Card::open(name, model);
}

void Ledger::leave_card() {
  card_.leave();
}

Ledger::Seat Ledger::take(size_t bytes, uint32_t stream) {
  if (auto seat = try_to_take(bytes, stream, IfFull::Refuse)) {
    return *seat;
  }
  // As torch does: wait for the card, let go of what is cached, try once more.
  {
    std::lock_guard<std::mutex> lock(mutex_);
    ++retries_;
  }
  synchronize();
  forget_earlier_owners();
  empty_cache();
  if (auto seat = try_to_take(bytes, stream, IfFull::Refuse)) {
    return *seat;
  }
  refuse(bytes);
}

Ledger::Seat Ledger::take_anyway(size_t bytes, uint32_t stream) {
  return *try_to_take(bytes, stream, IfFull::TakeAnyway);
}

std::optional<Ledger::Seat> Ledger::try_to_take(size_t bytes, uint32_t stream, IfFull if_full) {
  if (bytes == 0) {
    return Seat{};
  }
  std::lock_guard<std::mutex> lock(mutex_);
  let_leave();
  Seat seat{bytes, rounded(bytes), nullptr};
  if (!place(seat, stream, if_full)) {
    return std::nullopt;
  }
  enter(seat);
  return seat;
}

bool Ledger::place(Seat& seat, uint32_t stream, IfFull if_full) {
  const bool small = Cache::is_small(seat.given);
  if (fragmentation_) {
    seat.piece = cache_.take(seat.given, stream, [&](size_t size) { return grow(size, small, if_full); });
    seat.given = seat.piece != nullptr ? Cache::bytes_of(seat.piece) : 0;
    return seat.piece != nullptr;
  }
  const size_t wanted = current(active_) + seat.given;
  // All that is reserved is one segment, of the large pool.
  return wanted <= current(reserved_) || grow(wanted - current(reserved_), /*small=*/false, if_full);
}

bool Ledger::grow(size_t bytes, bool small, IfFull if_full) {
  if (if_full == IfFull::TakeAnyway) {
    card_.reserve_anyway(bytes);
  } else if (!card_.reserve(bytes)) {
    return false;
  }
  increase(reserved_, small, bytes);
  if (fragmentation_ || current(segments_) == 0) {
    increase(segments_, small, 1);
  }
  return true;
}

void Ledger::shrink(size_t bytes, bool small) {
  card_.give_back(bytes);
  decrease(reserved_, small, bytes);
  if (fragmentation_ || current(reserved_) == 0) {
    decrease(segments_, small, 1);
  }
}

void Ledger::enter(const Seat& seat) {
  const bool small = Cache::is_small(rounded(seat.bytes));
  increase(blocks_, small, 1);
  increase(active_blocks_, small, 1);
  increase(bytes_, small, seat.given);
  increase(active_, small, seat.given);
  increase(requested_, small, seat.bytes);
}

void Ledger::give_back(const Seat& seat, Nanoseconds until) noexcept {
  if (seat.bytes == 0) {
    return;
  }
  const bool later = until > 0 && until > now();
  const bool small = Cache::is_small(rounded(seat.bytes));
  std::lock_guard<std::mutex> lock(mutex_);
  decrease(blocks_, small, 1);
  decrease(bytes_, small, seat.given);
  decrease(requested_, small, seat.bytes);
  if (later) {
    leaving_.push_back({until, seat});
  } else {
    leave(seat);
  }
}

void Ledger::leave(const Seat& seat) {
  const bool small = Cache::is_small(rounded(seat.bytes));
  decrease(active_blocks_, small, 1);
  decrease(active_, small, seat.given);
  if (seat.piece != nullptr) {
    cache_.give_back(seat.piece);
  }
}

void Ledger::let_leave() {
  if (leaving_.empty()) {
    return;
  }
  const Nanoseconds time = now();
  const auto stay = std::stable_partition(
      leaving_.begin(), leaving_.end(), [time](const Leaving& each) { return each.until > time; });
  for (auto each = stay; each != leaving_.end(); ++each) {
    leave(each->seat);
  }
  leaving_.erase(stay, leaving_.end());
}

void Ledger::empty_cache() {
  std::lock_guard<std::mutex> lock(mutex_);
  let_leave();
  const size_t unused = current(reserved_) - current(active_);
  if (!fragmentation_) {
    if (unused > 0) {
      shrink(unused, /*small=*/false);
    }
    return;
  }
  for (auto released = cache_.release_one(); released.first > 0; released = cache_.release_one()) {
    shrink(released.first, released.second);
  }
}

void Ledger::refuse(size_t bytes) {
  const shared::Snapshot card = card_.look();
  std::lock_guard<std::mutex> lock(mutex_);
  ++refusals_;
  const size_t mine = current(reserved_);
  const size_t others = card.used > mine ? card.used - mine : 0;
  TORCH_CHECK_WITH(
      OutOfMemoryError,
      false,
      "simgpu out of memory. Tried to allocate ",
      spelled(bytes),
      ". The card has a capacity of ",
      spelled(card.model.capacity),
      " of which ",
      spelled(card.model.capacity > card.used ? card.model.capacity - card.used : 0),
      " is free; ",
      spelled(others),
      " is held by other processes; of what this process holds, ",
      spelled(current(bytes_)),
      " is allocated and ",
      spelled(mine - std::min(mine, current(bytes_))),
      " is reserved but unallocated.");
}

void Ledger::set_fragmentation(bool on) {
  empty_cache();
  std::lock_guard<std::mutex> lock(mutex_);
  TORCH_CHECK(
      on == fragmentation_ || current(active_) == 0,
      "simgpu: fragmentation cannot be switched while ",
      spelled(current(active_)),
      " are in use: delete the tensors on the card first, and synchronize");
  fragmentation_ = on;
}

void Ledger::set_capacity(size_t bytes) {
  card_.set_capacity(bytes);
}

size_t Ledger::capacity() {
  return card_.capacity();
}

size_t Ledger::free() {
  return card_.free();
}

shared::Link Ledger::link() const {
  return card_.link();
}

void Ledger::report(Nanoseconds compute_busy, Nanoseconds copy_busy, Nanoseconds now) {
  card_.report(static_cast<uint64_t>(compute_busy), static_cast<uint64_t>(copy_busy), static_cast<uint64_t>(now));
}

c10::CachingDeviceAllocator::DeviceStats Ledger::statistics() {
  std::lock_guard<std::mutex> lock(mutex_);
  c10::CachingDeviceAllocator::DeviceStats stats;
  stats.allocation = blocks_;
  stats.segment = segments_;
  stats.active = active_blocks_;
  stats.allocated_bytes = bytes_;
  stats.reserved_bytes = reserved_;
  stats.active_bytes = active_;
  stats.requested_bytes = requested_;
  for (const bool small : {false, true}) {
    const Cache::Count inactive = cache_.inactive(small);
    increase(stats.inactive_split, small, inactive.pieces);
    increase(stats.inactive_split_bytes, small, inactive.bytes);
  }
  stats.num_ooms = refusals_;
  stats.num_alloc_retries = retries_;
  stats.num_device_alloc = segments_[kAll].allocated;
  stats.num_device_free = segments_[kAll].freed;
  return stats;
}

std::array<Stats*, 7> Ledger::all_stats() {
  return {&blocks_, &active_blocks_, &segments_, &bytes_, &active_, &reserved_, &requested_};
}

void Ledger::reset_accumulated() {
  std::lock_guard<std::mutex> lock(mutex_);
  for (Stats* stats : all_stats()) {
    for (auto& stat : *stats) {
      stat.reset_accumulated();
    }
  }
  refusals_ = 0;
  retries_ = 0;
}

void Ledger::reset_peak() {
  std::lock_guard<std::mutex> lock(mutex_);
  for (Stats* stats : all_stats()) {
    for (auto& stat : *stats) {
      stat.reset_peak();
    }
  }
}

} // namespace simgpu
