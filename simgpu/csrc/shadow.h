// The shadow of a block of memory: which work has written and read which of its bytes, so that two uses that nothing
// orders are found when the second one is asked for. Bytes are told apart to the single one, since an arena is one block
// with many pages in it. Knows no torch.
#pragma once

#include "vector_clock.h"

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

namespace simgpu {

// The bytes that one use touches: all of [begin, end), or with `strided` only some of them.
struct Region {
  // Elements of `size` bytes at begin + sum(index * stride); strides are bytes and not negative.
  struct Strided {
    int64_t size;
    std::vector<int64_t> sizes, strides;
  };

  uintptr_t begin = 0, end = 0;
  std::shared_ptr<const Strided> strided;
};

// Whether they share a byte, and whether they are the same bytes.
bool overlap(const Region& a, const Region& b);
bool same(const Region& a, const Region& b);

enum class AccessKind : uint8_t { Read, Write, Freed }; // Freed: by an earlier owner of the bytes

struct Access {
  Epoch epoch;
  AccessKind kind = AccessKind::Read;
  const char* operation = ""; // lives for ever
  std::shared_ptr<const Region> region; // only where it is strided
};

class Shadow {
 public:
  // Notes a use of `region` by work that knows of `known`. Returns an earlier use that it is not ordered after and that
  // conflicts (one of the two writes); then nothing is noted. Uses that the host knows to be over are forgotten: whatever
  // comes is ordered after them.
  std::optional<Access> use(
      const Region& region, const Access& access, const VectorClock& known, const VectorClock& host);

  // Takes back what work that did not happen has noted of `region`.
  void forget(const Region& region, Epoch epoch);

  // Notes uses of the whole block by its earlier owners, without looking.
  void inherit(uintptr_t begin, uintptr_t end, const std::vector<Access>& earlier);

  // The latest use by every stream, of any byte, as Freed: what has to end before others may write there.
  std::vector<Access> latest() const;

 private:
  struct Cell {
    uintptr_t end;
    std::vector<Access> accesses;
  };
  using Cells = std::map<uintptr_t, Cell>;

  std::optional<Access> conflict(const Region& region, const Access& access, const VectorClock& known) const;
  void split(uintptr_t at);
  void write(const Region& region, const Access& access);
  void read(const Region& region, const Access& access);
  template <typename Visit>
  void cover(const Region& region, Visit visit);
  template <typename Over>
  void erase_if(const Region& region, Over over);
  Cells::iterator first_in(uintptr_t begin);
  Cells::const_iterator first_in(uintptr_t begin) const;

  Cells cells_;
};

} // namespace simgpu
