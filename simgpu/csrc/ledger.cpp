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

size_t current(const c10::CachingAllocator::Stat& stat) {
  return static_cast<size_t>(stat.current);
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
      reserved_.current == 0,
      "simgpu: the card cannot be changed while ",
      spelled(current(active_)),
      " of it are in use: delete the tensors on it first");
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
  // As torch does: wait for what streams still use, let go of what is cached, try once more.
  const Nanoseconds last = last_leaving();
  if (last > 0) {
    wait_until(last);
  }
  empty_cache();
  if (auto seat = try_to_take(bytes, stream, IfFull::Refuse)) {
    std::lock_guard<std::mutex> lock(mutex_);
    ++retries_;
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
  Seat seat{bytes, nullptr, fragmentation_};
  if (fragmentation_) {
    seat.piece = cache_.take(rounded(bytes), stream, [&](size_t size) { return grow(size, if_full); });
    if (seat.piece == nullptr) {
      return std::nullopt;
    }
  } else {
    const size_t wanted = current(active_) + rounded(bytes);
    if (wanted > current(reserved_) && !grow(wanted - current(reserved_), if_full)) {
      return std::nullopt;
    }
  }
  enter(bytes);
  return seat;
}

bool Ledger::grow(size_t bytes, IfFull if_full) {
  if (if_full == IfFull::TakeAnyway) {
    card_.reserve_anyway(bytes);
  } else if (!card_.reserve(bytes)) {
    return false;
  }
  reserved_.increase(bytes);
  if (fragmentation_ || segments_.current == 0) {
    segments_.increase(1);
  }
  return true;
}

void Ledger::enter(size_t bytes) {
  blocks_.increase(1);
  active_blocks_.increase(1);
  bytes_.increase(rounded(bytes));
  active_.increase(rounded(bytes));
  requested_.increase(bytes);
}

bool Ledger::overdrawn() {
  return card_.look().used > card_.capacity();
}

void Ledger::give_back(const Seat& seat, Nanoseconds until) noexcept {
  if (seat.bytes == 0) {
    return;
  }
  const bool later = until > 0 && until > now();
  std::lock_guard<std::mutex> lock(mutex_);
  blocks_.decrease(1);
  bytes_.decrease(rounded(seat.bytes));
  requested_.decrease(seat.bytes);
  if (later) {
    leaving_.push_back({until, seat});
  } else {
    leave(seat);
  }
}

void Ledger::leave(const Seat& seat) {
  active_blocks_.decrease(1);
  active_.decrease(rounded(seat.bytes));
  if (seat.fragmented) {
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

Nanoseconds Ledger::last_leaving() {
  std::lock_guard<std::mutex> lock(mutex_);
  Nanoseconds last = 0;
  for (const Leaving& each : leaving_) {
    last = std::max(last, each.until);
  }
  return last;
}

void Ledger::empty_cache() {
  std::lock_guard<std::mutex> lock(mutex_);
  let_leave();
  const size_t unused = fragmentation_ ? cache_.release() : current(reserved_) - current(active_);
  if (unused == 0) {
    return;
  }
  card_.give_back(unused);
  reserved_.decrease(unused);
  const size_t left = fragmentation_ ? cache_.segments() : (reserved_.current > 0 ? 1 : 0);
  segments_.decrease(current(segments_) - left);
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
      on == fragmentation_ || active_.current == 0,
      "simgpu: fragmentation cannot be switched while ",
      spelled(current(active_)),
      " are in use: delete the tensors on the card first");
  fragmentation_ = on;
}

bool Ledger::fragmentation() {
  std::lock_guard<std::mutex> lock(mutex_);
  return fragmentation_;
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

size_t Ledger::reserved() {
  std::lock_guard<std::mutex> lock(mutex_);
  return current(reserved_);
}

shared::Link Ledger::link() const {
  return card_.link();
}

void Ledger::report(Nanoseconds compute_busy, Nanoseconds copy_busy, Nanoseconds now) {
  card_.report(static_cast<uint64_t>(compute_busy), static_cast<uint64_t>(copy_busy), static_cast<uint64_t>(now));
}

c10::CachingDeviceAllocator::DeviceStats Ledger::statistics() {
  std::lock_guard<std::mutex> lock(mutex_);
  constexpr size_t all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  c10::CachingDeviceAllocator::DeviceStats stats;
  stats.allocation[all] = blocks_;
  stats.segment[all] = segments_;
  stats.active[all] = active_blocks_;
  stats.allocated_bytes[all] = bytes_;
  stats.reserved_bytes[all] = reserved_;
  stats.active_bytes[all] = active_;
  stats.requested_bytes[all] = requested_;
  stats.num_ooms = refusals_;
  stats.num_alloc_retries = retries_;
  stats.num_device_alloc = segments_.allocated;
  stats.num_device_free = segments_.freed;
  return stats;
}

void Ledger::reset_accumulated() {
  std::lock_guard<std::mutex> lock(mutex_);
  for (auto* stat : {&blocks_, &active_blocks_, &segments_, &bytes_, &active_, &reserved_, &requested_}) {
    stat->reset_accumulated();
  }
  refusals_ = 0;
  retries_ = 0;
}

void Ledger::reset_peak() {
  std::lock_guard<std::mutex> lock(mutex_);
  for (auto* stat : {&blocks_, &active_blocks_, &segments_, &bytes_, &active_, &reserved_, &requested_}) {
    stat->reset_peak();
  }
}

} // namespace simgpu
