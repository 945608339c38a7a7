#include "shadow.h"

#include <algorithm>
#include <iterator>

#include <utility>

namespace simgpu {
namespace {

using Strided = Region::Strided;

// Whether any byte of [from, to) belongs to the elements of `layout` from dimension `dim` on, the first of which is at `at`.
bool touches(const Strided& layout, size_t dim, uintptr_t at, uintptr_t from, uintptr_t to) {
  if (dim == layout.sizes.size()) {
    return at < to && from < at + static_cast<uintptr_t>(layout.size);
  }
  uintptr_t extent = static_cast<uintptr_t>(layout.size); // of one slice
  for (size_t d = dim + 1; d < layout.sizes.size(); ++d) {
    extent += static_cast<uintptr_t>((layout.sizes[d] - 1) * layout.strides[d]);
  }
  const auto step = static_cast<uintptr_t>(layout.strides[dim]);
  int64_t first = 0, last = layout.sizes[dim] - 1;
  if (step > 0) { // only the slices that can reach
    first = from < at + extent ? 0 : static_cast<int64_t>((from - at - extent) / step);
    last = to <= at ? -1 : std::min<int64_t>(last, static_cast<int64_t>((to - 1 - at) / step));
  }
  for (int64_t i = first; i <= last; ++i) {
    if (touches(layout, dim + 1, at + static_cast<uintptr_t>(i) * step, from, to)) {
      return true;
    }
  }
  return false;
}

// Whether an element of `layout` from dimension `dim` on shares a byte with `other`.
bool meets(const Strided& layout, size_t dim, uintptr_t at, const Region& other) {
  if (dim < layout.sizes.size()) {
    for (int64_t i = 0; i < layout.sizes[dim]; ++i) {
      if (meets(layout, dim + 1, at + static_cast<uintptr_t>(i * layout.strides[dim]), other)) {
        return true;
      }
    }
    return false;
  }
  const uintptr_t end = at + static_cast<uintptr_t>(layout.size);
  if (end <= other.begin || other.end <= at) {
    return false;
  }
  return !other.strided || touches(*other.strided, 0, other.begin, at, end);
}

// Whether `later` says all that `earlier` says, since its stream runs in order and its bytes are the same or more.
bool replaces(const Access& later, const Access& earlier) {
  return later.kind == earlier.kind && later.epoch.stream == earlier.epoch.stream &&
      (!later.region || (earlier.region && same(*later.region, *earlier.region)));
}

void note(std::vector<Access>& accesses, const Access& access) {
  for (Access& each : accesses) {
    if (replaces(access, each)) {
      each = access;
      return;
    }
  }
  accesses.push_back(access);
}

bool same_layout(const Strided& a, const Strided& b) {
  return a.size == b.size && a.sizes == b.sizes && a.strides == b.strides;
}

} // namespace

bool overlap(const Region& a, const Region& b) {
  if (a.end <= b.begin || b.end <= a.begin) {
    return false;
  }
  if (a.strided) {
    return b.strided ? meets(*a.strided, 0, a.begin, b) : touches(*a.strided, 0, a.begin, b.begin, b.end);
  }
  return !b.strided || touches(*b.strided, 0, b.begin, a.begin, a.end);
}

bool same(const Region& a, const Region& b) {
  return a.begin == b.begin && a.end == b.end &&
      (a.strided && b.strided ? same_layout(*a.strided, *b.strided) : !a.strided == !b.strided);
}

std::optional<Access> Shadow::use(
    const Region& region, const Access& access, const VectorClock& known, const VectorClock& host) {
  if (region.begin >= region.end) {
    return std::nullopt;
  }
  erase_if(region, [&](const Access& each) { return host.knows(each.epoch); });
  if (auto found = conflict(region, access, known)) {
    return found;
  }
  if (!region.strided) {
    access.kind == AccessKind::Write ? write(region, access) : read(region, access);
    return std::nullopt;
  }
  Access partial = access;
  partial.region = std::make_shared<Region>(region);
  read(region, partial); // some bytes of a cell only: what else is known of it stays
  return std::nullopt;
}

std::optional<Access> Shadow::conflict(const Region& region, const Access& access, const VectorClock& known) const {
  for (auto cell = first_in(region.begin); cell != cells_.end() && cell->first < region.end; ++cell) {
    for (const Access& earlier : cell->second.accesses) {
      // What a block's earlier owners still do with it harms only if it is written to.
      const bool conflicts = access.kind == AccessKind::Write || earlier.kind == AccessKind::Write;
      if (!conflicts || known.knows(earlier.epoch)) {
        continue;
      }
      if ((!earlier.region && !region.strided) ||
          overlap(region, earlier.region ? *earlier.region : Region{cell->first, cell->second.end, nullptr})) {
        return earlier;
      }
    }
  }
  return std::nullopt;
}

void Shadow::forget(const Region& region, Epoch epoch) {
  erase_if(region, [&](const Access& each) {
    return each.epoch.stream == epoch.stream && each.epoch.count == epoch.count;
  });
}

// Erases uses from the cells that the region touches, and cells that nobody uses.
template <typename Over>
void Shadow::erase_if(const Region& region, Over over) {
  for (auto cell = first_in(region.begin); cell != cells_.end() && cell->first < region.end;) {
    auto& accesses = cell->second.accesses;
    accesses.erase(std::remove_if(accesses.begin(), accesses.end(), over), accesses.end());
    cell = accesses.empty() ? cells_.erase(cell) : std::next(cell);
  }
}

// The cell that `begin` lies in, or the first one after it.
Shadow::Cells::const_iterator Shadow::first_in(uintptr_t begin) const {
  const auto after = cells_.upper_bound(begin);
  return after != cells_.begin() && std::prev(after)->second.end > begin ? std::prev(after) : after;
}

Shadow::Cells::iterator Shadow::first_in(uintptr_t begin) {
  const auto after = cells_.upper_bound(begin);
  return after != cells_.begin() && std::prev(after)->second.end > begin ? std::prev(after) : after;
}

void Shadow::split(uintptr_t at) {
  auto cell = cells_.upper_bound(at);
  if (cell == cells_.begin()) {
    return;
  }
  --cell;
  if (cell->first < at && at < cell->second.end) {
    Cell upper{cell->second.end, cell->second.accesses};
    cell->second.end = at;
    cells_.emplace(at, std::move(upper));
  }
}

// A write of all bytes replaces what was known of them.
void Shadow::write(const Region& region, const Access& access) {
  const auto same = cells_.find(region.begin);
  if (same != cells_.end() && same->second.end == region.end) {
    same->second.accesses.assign(1, access);
    return;
  }
  split(region.begin);
  split(region.end);
  cells_.erase(cells_.lower_bound(region.begin), cells_.lower_bound(region.end));
  cells_.emplace(region.begin, Cell{region.end, {access}});
}

void Shadow::read(const Region& region, const Access& access) {
  cover(region, [&](Cell& cell) { note(cell.accesses, access); });
}

// Visits the cells that make up the region, making those that are missing.
template <typename Visit>
void Shadow::cover(const Region& region, Visit visit) {
  split(region.begin);
  split(region.end);
  uintptr_t at = region.begin;
  auto cell = cells_.lower_bound(at);
  while (at < region.end) {
    if (cell == cells_.end() || cell->first > at) {
      const uintptr_t until = cell == cells_.end() ? region.end : std::min(region.end, cell->first);
      cell = cells_.emplace_hint(cell, at, Cell{until, {}});
    }
    visit(cell->second);
    at = cell->second.end;
    ++cell;
  }
}

void Shadow::inherit(uintptr_t begin, uintptr_t end, const std::vector<Access>& earlier) {
  if (begin < end && !earlier.empty()) {
    cells_.emplace(begin, Cell{end, earlier});
  }
}

std::vector<Access> Shadow::latest() const {
  std::vector<Access> all;
  for (const auto& [begin, cell] : cells_) {
    for (const Access& access : cell.accesses) {
      const auto same = std::find_if(
          all.begin(), all.end(), [&](const Access& each) { return each.epoch.stream == access.epoch.stream; });
      if (same == all.end()) {
        all.push_back(access);
      } else if (same->epoch.count < access.epoch.count) {
        *same = access;
      }
    }
  }
  for (Access& access : all) {
    access.region = nullptr;
    access.kind = AccessKind::Freed;
  }
  return all;
}

} // namespace simgpu
