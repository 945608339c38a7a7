#include "cache.h"

#include <algorithm>

namespace simgpu {
namespace {

constexpr size_t kMiB = size_t{1} << 20;
constexpr size_t kGranule = 512;
constexpr size_t kSmall = kMiB; // blocks up to this size share small segments
constexpr size_t kSmallSegment = 2 * kMiB;
constexpr size_t kMedium = 10 * kMiB; // blocks below this size share medium segments
constexpr size_t kMediumSegment = 20 * kMiB;

size_t segment_size(size_t rounded) {
  if (rounded <= kSmall) {
    return kSmallSegment;
  }
  return rounded < kMedium ? kMediumSegment : (rounded + 2 * kMiB - 1) / (2 * kMiB) * (2 * kMiB);
}

} // namespace

struct Cache::Piece {
  size_t bytes;
  Segment* segment;
  uint64_t id; // older first among equals
  bool taken = false;
  Piece* before = nullptr; // neighbours in the segment
  Piece* after = nullptr;
};

struct Cache::Segment {
  size_t bytes;
  Pool pool;
  std::map<uint64_t, std::unique_ptr<Piece>> pieces;
  uint64_t next_id = 0;

  Piece* add(size_t size) {
    const uint64_t id = next_id++;
    return pieces.emplace(id, std::make_unique<Piece>(Piece{size, this, id})).first->second.get();
  }
};

Cache::Cache() = default;
Cache::~Cache() = default;

bool Cache::BySize::operator()(const Piece* a, const Piece* b) const {
  return a->bytes != b->bytes ? a->bytes < b->bytes : a < b;
}

Cache::Piece* Cache::take(size_t rounded, uint32_t stream, const std::function<bool(size_t)>& grow) {
  const Pool pool{stream, rounded <= kSmall};
  Piece* piece = best_fit(rounded, pool);
  if (piece == nullptr) {
    piece = new_segment(rounded, pool, grow);
  }
  if (piece != nullptr) {
    split(piece, rounded);
    piece->taken = true;
  }
  return piece;
}

Cache::Piece* Cache::best_fit(size_t rounded, Pool pool) {
  Free& free = free_[pool];
  const auto fit =
      std::find_if(free.begin(), free.end(), [&](const Piece* piece) { return piece->bytes >= rounded; });
  if (fit == free.end()) {
    return nullptr;
  }
  Piece* found = *fit;
  free.erase(fit);
  return found;
}

Cache::Piece* Cache::new_segment(size_t rounded, Pool pool, const std::function<bool(size_t)>& grow) {
  const size_t bytes = segment_size(rounded);
  if (!grow(bytes)) {
    return nullptr;
  }
  segments_.push_back(std::make_unique<Segment>(Segment{bytes, pool, {}, 0}));
  return segments_.back()->add(bytes);
}

// What is left over stays free where it is worth keeping.
void Cache::split(Piece* piece, size_t rounded) {
  const size_t left = piece->bytes - rounded;
  if (left < kGranule || (!piece->segment->pool.second && left <= kSmall)) {
    return;
  }
  Piece* rest = piece->segment->add(left);
  piece->bytes = rounded;
  rest->before = piece;
  rest->after = piece->after;
  if (rest->after != nullptr) {
    rest->after->before = rest;
  }
  piece->after = rest;
  free_[piece->segment->pool].insert(rest);
}

void Cache::give_back(Piece* piece) {
  piece->taken = false;
  if (piece->after != nullptr && !piece->after->taken) {
    free_[piece->segment->pool].erase(piece->after);
    absorb(piece, piece->after);
  }
  if (piece->before != nullptr && !piece->before->taken) {
    Piece* before = piece->before;
    free_[piece->segment->pool].erase(before);
    absorb(before, piece);
    piece = before;
  }
  free_[piece->segment->pool].insert(piece);
}

// `next`, which follows `piece`, becomes part of it.
void Cache::absorb(Piece* piece, Piece* next) {
  piece->bytes += next->bytes;
  piece->after = next->after;
  if (piece->after != nullptr) {
    piece->after->before = piece;
  }
  piece->segment->pieces.erase(next->id);
}

size_t Cache::release() {
  size_t released = 0;
  for (auto segment = segments_.begin(); segment != segments_.end();) {
    Piece* only = (*segment)->pieces.size() == 1 ? (*segment)->pieces.begin()->second.get() : nullptr;
    if (only == nullptr || only->taken) {
      ++segment;
      continue;
    }
    free_[(*segment)->pool].erase(only);
    released += (*segment)->bytes;
    segment = segments_.erase(segment);
  }
  return released;
}

} // namespace simgpu
