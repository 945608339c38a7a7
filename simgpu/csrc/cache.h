// How a caching allocator cuts the card's memory: segments taken from the card, pieces within them, best fit, split and
// merge, as PyTorch's CUDACachingAllocator does it. Bookkeeping only; there are no bytes behind it. Not thread-safe.
#pragma once

#include <c10/util/FunctionRef.h>

#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <utility>

namespace simgpu {

class Cache {
 public:
  struct Piece;
  struct Count {
    size_t pieces = 0, bytes = 0;
  };

  Cache();
  ~Cache();

  // Blocks up to 1 MiB have segments of their own.
  static bool is_small(size_t rounded);

  // A piece of at least `rounded` bytes for that stream, from the cache or from a new segment that `grow` grants; null
  // where it does not.
  Piece* take(size_t rounded, uint32_t stream, c10::function_ref<bool(size_t)> grow);
  void give_back(Piece* piece);
  static size_t bytes_of(const Piece* piece);

  // Lets go of a segment that holds nothing; returns its bytes and which pool it was of, 0 bytes where there is none.
  std::pair<size_t, bool> release_one();
  // Free pieces of segments that are in use.
  Count inactive(bool small) const;

 private:
  struct Segment;
  using Pool = std::pair<uint32_t, bool>; // stream, small
  using Free = std::map<std::pair<size_t, uint64_t>, Piece*>; // by size, older pieces first among equals

  Piece* best_fit(size_t rounded, Pool pool);
  Piece* new_segment(size_t rounded, Pool pool, c10::function_ref<bool(size_t)> grow);
  Piece* add(Segment& segment, size_t bytes);
  void split(Piece* piece, size_t rounded);
  void absorb(Piece* piece, Piece* next);
  void lend(Piece* piece);
  void take_back(Piece* piece);

  std::list<std::unique_ptr<Segment>> segments_;
  std::map<Pool, Free> free_;
  uint64_t next_id_ = 0;
};

} // namespace simgpu
