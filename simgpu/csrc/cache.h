// How a caching allocator cuts the card's memory: segments taken from the card, blocks within them, best fit, split and
// merge, as PyTorch's CUDACachingAllocator does it. Bookkeeping only; there are no bytes behind it. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <utility>

namespace simgpu {

class Cache {
 public:
  struct Piece;

  Cache();
  ~Cache();

  // A piece of at least `rounded` bytes for that stream, from the cache or from a new segment that `grow` grants; null
  // where it does not.
  Piece* take(size_t rounded, uint32_t stream, const std::function<bool(size_t)>& grow);
  void give_back(Piece* piece);
  // Lets go of segments that hold nothing; returns their bytes.
  size_t release();

  size_t segments() const {
    return segments_.size();
  }

 private:
  struct Segment;
  using Pool = std::pair<uint32_t, bool>; // stream, small
  struct BySize {
    bool operator()(const Piece* a, const Piece* b) const;
  };
  using Free = std::set<Piece*, BySize>;

  Piece* best_fit(size_t rounded, Pool pool);
  Piece* new_segment(size_t rounded, Pool pool, const std::function<bool(size_t)>& grow);
  void split(Piece* piece, size_t rounded);
  void absorb(Piece* piece, Piece* next);

  std::list<std::unique_ptr<Segment>> segments_;
  std::map<Pool, Free> free_;
};

} // namespace simgpu
