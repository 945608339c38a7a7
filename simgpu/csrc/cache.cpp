#include "cache.h"

#include "ledger.h"

namespace simgpu {
namespace {

constexpr size_t kMiB = size_t{1} << 20;
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
  uint64_t id;
  bool taken = false;
  Piece* before = nullptr; // neighbours in the segment
  Piece* after = nullptr;
};

struct Cache::Segment {
  size_t bytes;
  Pool pool;
  std::map<uint64_t, std::unique_ptr<Piece>> pieces;
};

Cache::Cache() = default;
Cache::~Cache() = default;

bool Cache::is_small(size_t rounded) {
  return rounded <= kSmall;
}

size_t Cache::bytes_of(const Piece* piece) {
  return piece->bytes;
}

Cache::Piece* Cache::take(size_t rounded, uint32_t stream, c10::function_ref<bool(size_t)> grow) {
  const Pool pool{stream, is_small(rounded)};
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
  const auto fit = free.lower_bound({rounded, 0});
  if (fit == free.end()) {
    return nullptr;
  }
  Piece* found = fit->second;
  free.erase(fit);
  return found;
}

Cache::Piece* Cache::new_segment(size_t rounded, Pool pool, c10::function_ref<bool(size_t)> grow) {
  const size_t bytes = segment_size(rounded);
  if (!grow(bytes)) {
    return nullptr;
  }
  segments_.push_back(std::make_unique<Segment>(Segment{bytes, pool, {}}));
  return add(*segments_.back(), bytes);
}

Cache::Piece* Cache::add(Segment& segment, size_t bytes) {
  const uint64_t id = next_id_++;
  return segment.pieces.emplace(id, std::make_unique<Piece>(Piece{bytes, &segment, id})).first->second.get();
}

// What is left over stays free where it is worth keeping.
void Cache::split(Piece* piece, size_t rounded) {
  const size_t left = piece->bytes - rounded;
  if (left < Ledger::kGranule || (!piece->segment->pool.second && left <= kSmall)) {
    return;
  }
  Piece* rest = add(*piece->segment, left);
  piece->bytes = rounded;
  rest->before = piece;
  rest->after = piece->after;
  if (rest->after != nullptr) {
    rest->after->before = rest;
  }
  piece->after = rest;
  lend(rest);
}

void Cache::give_back(Piece* piece) {
  piece->taken = false;
  if (piece->after != nullptr && !piece->after->taken) {
    take_back(piece->after);
    absorb(piece, piece->after);
  }
  if (piece->before != nullptr && !piece->before->taken) {
    Piece* before = piece->before;
    take_back(before);
    absorb(before, piece);
    piece = before;
  }
  lend(piece);
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

// From now on the piece may be taken by anybody of its pool, respectively by nobody.
void Cache::lend(Piece* piece) {
  free_[piece->segment->pool].emplace(std::make_pair(piece->bytes, piece->id), piece);
}

void Cache::take_back(Piece* piece) {
  free_[piece->segment->pool].erase({piece->bytes, piece->id});
}

std::pair<size_t, bool> Cache::release_one() {
  for (auto segment = segments_.begin(); segment != segments_.end(); ++segment) {
    auto& pieces = (*segment)->pieces;
    if (pieces.size() == 1 && !pieces.begin()->second->taken) {
      take_back(pieces.begin()->second.get());
      const std::pair<size_t, bool> released{(*segment)->bytes, (*segment)->pool.second};
      segments_.erase(segment);
      return released;
    }
  }
  return {0, false};
}

Cache::Count Cache::inactive(bool small) const {
  Count count;
  for (const auto& segment : segments_) {
    for (const auto& [id, piece] : segment->pieces) {
      if (segment->pool.second == small && segment->pieces.size() > 1 && !piece->taken) {
        ++count.pieces;
        count.bytes += piece->bytes;
      }
    }
  }
  return count;
}

} // namespace simgpu
