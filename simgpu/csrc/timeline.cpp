#include "timeline.h"

#include <algorithm>

namespace simgpu {

Nanoseconds Engine::book(Nanoseconds asked, Nanoseconds ready, Nanoseconds duration) {
  const Nanoseconds earliest = std::max(asked, ready);
  totals_.busy += duration;
  Nanoseconds start = 0;
  if (earliest < free_at_ && book_in_a_gap(earliest, duration, &start)) {
    const Nanoseconds waited = std::min(totals_.stalled, duration); // it did not stand still after all
    totals_.stalled -= waited;
    totals_.starved -= std::min(totals_.starved, duration - waited);
    return start;
  }
  start = std::max(earliest, free_at_);
  if (start > free_at_) {
    const Nanoseconds starved = std::clamp<Nanoseconds>(asked - free_at_, 0, start - free_at_);
    totals_.starved += starved;
    totals_.stalled += start - free_at_ - starved;
    forget_gaps_before(asked);
    gaps_.push_back({free_at_, start});
  }
  free_at_ = start + duration;
  return start;
}

bool Engine::book_in_a_gap(Nanoseconds earliest, Nanoseconds duration, Nanoseconds* start) {
  for (size_t i = 0; i < gaps_.size(); ++i) {
    const Gap gap = gaps_[i];
    *start = std::max(gap.from, earliest);
    if (*start + duration > gap.to) {
      continue;
    }
    gaps_.erase(gaps_.begin() + static_cast<std::ptrdiff_t>(i));
    if (*start + duration < gap.to) {
      gaps_.insert(gaps_.begin() + static_cast<std::ptrdiff_t>(i), {*start + duration, gap.to});
    }
    if (gap.from < *start) {
      gaps_.insert(gaps_.begin() + static_cast<std::ptrdiff_t>(i), {gap.from, *start});
    }
    return true;
  }
  return false;
}

void Engine::forget_gaps_before(Nanoseconds now) {
  gaps_.erase(
      std::remove_if(gaps_.begin(), gaps_.end(), [now](const Gap& gap) { return gap.to <= now; }), gaps_.end());
}

} // namespace simgpu
