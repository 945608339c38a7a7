// The layout of a card's file. Readers of any version understand the head and the first two words of a place, and so
// can tell whether somebody uses a card that another version made.
#pragma once

#include "state.h"

namespace simgpu::shared {

constexpr uint64_t kMagic = 0x0055504744455348; // "HSEDGPU", and a zero
constexpr uint32_t kVersion = 1;

// One process on the card. The other words mean nothing where pid is 0; it is written last when a place is taken.
struct alignas(64) Place {
  std::atomic<uint64_t> pid;
  std::atomic<uint64_t> born; // see process.h
  std::atomic<uint64_t> image;
  std::atomic<uint64_t> reserved, busy_ns, copy_ns, now_ns;
};

struct Head {
  std::atomic<uint64_t> magic; // 0 while the rest is being written
  uint32_t version;
  uint32_t places; // how many, where the first begins, and how far apart they are
  uint32_t first;
  uint32_t stride;
};

struct Page {
  Head head;
  char name[96], uuid[40], profile[64]; // written while nobody uses the card, read under its lock
  uint32_t power_limit_mw, compute_major, compute_minor;
  std::atomic<uint32_t> link_generation, link_width;
  std::atomic<uint64_t> capacity;
  std::atomic<uint64_t> squeezed;
  std::atomic<uint64_t> link; // generation << 32 | width as a stranger set it, 0 where none did
  Place places[Card::kPlaces];
};

static_assert(std::atomic<uint64_t>::is_always_lock_free, "a lock in the page would outlive its holder");

// Writes the model and empties all places; what a stranger did stays. Only under the lock, while nobody uses the card.
void fill(Page& page, const Model& model);
Model model_of(const Page& page);
Link link_of(const Page& page);

uint64_t used(const Page& page); // bytes, of the dead too where they were not buried
void bury(Page& page); // empties the places of dead processes
bool lived_on(const Page& page); // by anybody who is not buried
bool changed(const Page& page); // by a stranger

uint64_t plus(uint64_t a, uint64_t b); // the largest number where it is larger
void add(std::atomic<uint64_t>& to, uint64_t bytes);
void subtract(std::atomic<uint64_t>& from, uint64_t bytes); // down to 0

} // namespace simgpu::shared
