// What is taken and given back, and what the world does to a card.
#include "state.h"

#include "file.h"
#include "page.h"
#include "process.h"

#include <algorithm>
#include <cstdio>
#include <mutex>

namespace simgpu::shared {
namespace {

using Turn = std::lock_guard<std::mutex>;

void count(std::vector<Process>& all, const Place& place) {
  Process seen{static_cast<int32_t>(place.pid), place.reserved, place.busy_ns, place.copy_ns, place.now_ns};
  if (seen.reserved == 0 && seen.busy_ns == 0 && seen.copy_ns == 0 && seen.now_ns == 0) {
    return;
  }
  // A process that has the card open twice is still one.
  for (Process& known : all) {
    if (known.pid == seen.pid) {
      known.reserved = plus(known.reserved, seen.reserved);
      known.busy_ns = plus(known.busy_ns, seen.busy_ns);
      known.copy_ns = plus(known.copy_ns, seen.copy_ns);
      known.now_ns = std::max(known.now_ns, seen.now_ns);
      return;
    }
  }
  all.push_back(seen);
}

bool fits(const Page& page, uint64_t bytes) {
  const uint64_t taken = used(page);
  const uint64_t capacity = page.capacity;
  return taken <= capacity && bytes <= capacity - taken;
}

uint64_t hashed(const std::string& text, uint64_t hash) { // FNV-1a
  for (const unsigned char byte : text) {
    hash = (hash ^ byte) * 0x100000001b3;
  }
  return hash;
}

void check_link(const Page& page, Link link) {
  const bool lanes = link.width != 0 && (link.width & (link.width - 1)) == 0;
  if (link.generation == 0 || !lanes || link.generation > page.link_generation || link.width > page.link_width) {
    throw BadInput(
        "simgpu: the card's link cannot be PCIe " + std::to_string(link.generation) + " x" +
        std::to_string(link.width) + "; it is at most PCIe " + std::to_string(page.link_generation) + " x" +
        std::to_string(page.link_width) + ", with 1, 2, 4, 8, 16 or 32 lanes");
  }
}

} // namespace

std::string uuid_of(const std::string& card) {
  uint64_t high = hashed("simgpu:" + card, 0xcbf29ce484222325);
  uint64_t low = hashed(card + ":simgpu", high);
  high = (high & ~uint64_t{0xf000}) | 0x8000; // version 8: made in a way of its own
  low = (low & ~(uint64_t{3} << 62)) | uint64_t{2} << 62;
  char text[40];
  std::snprintf(
      text,
      sizeof text,
      "%08x-%04x-%04x-%04x-%012llx",
      static_cast<unsigned>(high >> 32),
      static_cast<unsigned>(high >> 16 & 0xffff),
      static_cast<unsigned>(high & 0xffff),
      static_cast<unsigned>(low >> 48),
      static_cast<unsigned long long>(low & 0xffffffffffff));
  return text;
}

Place* Card::mine() const {
  const int place = place_;
  return place < 0 || forked() ? nullptr : &page_.load()->places[place];
}

Snapshot Card::look() const {
  const Turn in_turn(turn());
  follow();
  const Locked locked(file_);
  Page& page = *page_;
  bury(page);
  Snapshot seen;
  seen.model = model_of(page);
  seen.link = link_of(page);
  seen.squeezed = page.squeezed;
  seen.used = used(page);
  seen.idle = !lived_on(page) && !changed(page);
  for (const Place& place : page.places) {
    if (place.pid != 0) {
      count(seen.processes, place);
    }
  }
  std::sort(seen.processes.begin(), seen.processes.end(), [](const Process& a, const Process& b) {
    return a.pid < b.pid;
  });
  return seen;
}

bool Card::reserve(uint64_t bytes) {
  const Turn in_turn(turn());
  join();
  const Locked locked(file_);
  Page& page = *page_;
  if (!fits(page, bytes)) {
    bury(page); // asked only now: it reads /proc
    if (!fits(page, bytes)) {
      return false;
    }
  }
  add(mine()->reserved, bytes);
  return true;
}

void Card::reserve_anyway(uint64_t bytes) {
  const Turn in_turn(turn());
  join();
  const Locked locked(file_);
  add(mine()->reserved, bytes);
}

void Card::give_back(uint64_t bytes) noexcept {
  if (Place* place = mine()) {
    subtract(place->reserved, bytes);
  }
}

void Card::report(uint64_t busy_ns, uint64_t copy_ns, uint64_t now_ns) {
  if (mine() == nullptr) {
    const Turn in_turn(turn());
    join();
  }
  Place& place = *mine();
  place.busy_ns.store(busy_ns, std::memory_order_relaxed);
  place.copy_ns.store(copy_ns, std::memory_order_relaxed);
  place.now_ns.store(now_ns, std::memory_order_relaxed);
}

uint64_t Card::reserved() const {
  const Place* place = mine();
  return place == nullptr ? 0 : place->reserved.load();
}

uint64_t Card::free() const {
  const Turn in_turn(turn());
  follow();
  const Locked locked(file_);
  Page& page = *page_;
  bury(page);
  const uint64_t taken = used(page);
  const uint64_t all = page.capacity;
  return taken < all ? all - taken : 0;
}

void Card::set_capacity(uint64_t bytes) {
  const Turn in_turn(turn());
  join();
  const Locked locked(file_);
  page_.load()->capacity = bytes;
}

uint64_t Card::capacity() const {
  return page_.load()->capacity;
}

void Card::squeeze(uint64_t bytes) {
  const Turn in_turn(turn());
  join();
  const Locked locked(file_);
  add(page_.load()->squeezed, bytes);
}

void Card::release() {
  const Turn in_turn(turn());
  join();
  const Locked locked(file_);
  page_.load()->squeezed = 0;
}

void Card::set_link(Link link) {
  const Turn in_turn(turn());
  join();
  const Locked locked(file_);
  Page& page = *page_;
  if (link.generation == 0 && link.width == 0) {
    page.link = 0;
    return;
  }
  check_link(page, link);
  page.link = uint64_t{link.generation} << 32 | link.width;
}

Link Card::link() const {
  return link_of(*page_);
}

} // namespace simgpu::shared
