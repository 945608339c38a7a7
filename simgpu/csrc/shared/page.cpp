#include "page.h"

#include "process.h"

#include <algorithm>
#include <cstring>

namespace simgpu::shared {
namespace {

template <size_t size>
void write(char (&to)[size], const std::string& text) {
  std::memset(to, 0, size);
  std::memcpy(to, text.data(), std::min(text.size(), size - 1));
}

template <size_t size>
std::string read(const char (&from)[size]) {
  return std::string(from, strnlen(from, size));
}

} // namespace

uint64_t plus(uint64_t a, uint64_t b) {
  return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

void add(std::atomic<uint64_t>& to, uint64_t bytes) {
  uint64_t now = to;
  while (!to.compare_exchange_weak(now, plus(now, bytes))) {
  }
}

void subtract(std::atomic<uint64_t>& from, uint64_t bytes) {
  uint64_t now = from;
  while (!from.compare_exchange_weak(now, now - std::min(now, bytes))) {
  }
}

void fill(Page& page, const Model& model) {
  page.head.magic = 0;
  page.head.version = kVersion;
  page.head.places = Card::kPlaces;
  page.head.first = offsetof(Page, places);
  page.head.stride = sizeof(Place);
  write(page.name, model.name);
  write(page.uuid, model.uuid);
  write(page.profile, model.profile);
  page.power_limit_mw = model.power_limit_mw;
  page.compute_major = model.compute_major;
  page.compute_minor = model.compute_minor;
  page.link_generation = model.link_generation;
  page.link_width = model.link_width;
  page.capacity = model.capacity;
  for (Place& place : page.places) {
    place.pid = 0;
  }
  page.head.magic = kMagic;
}

Model model_of(const Page& page) {
  Model model;
  model.name = read(page.name);
  model.uuid = read(page.uuid);
  model.profile = read(page.profile);
  model.capacity = page.capacity;
  model.link_generation = page.link_generation;
  model.link_width = page.link_width;
  model.power_limit_mw = page.power_limit_mw;
  model.compute_major = page.compute_major;
  model.compute_minor = page.compute_minor;
  return model;
}

Link link_of(const Page& page) {
  const Link most{page.link_generation, page.link_width};
  const uint64_t set = page.link;
  if (set == 0) {
    return most;
  }
  // The card may have become a smaller one since a stranger set its link.
  return Link{
      std::min(static_cast<uint32_t>(set >> 32), most.generation),
      std::min(static_cast<uint32_t>(set), most.width)};
}

uint64_t used(const Page& page) {
  uint64_t sum = page.squeezed;
  for (const Place& place : page.places) {
    if (place.pid != 0) {
      sum = plus(sum, place.reserved);
    }
  }
  return sum;
}

void bury(Page& page) {
  for (Place& place : page.places) {
    if (place.pid != 0 && dead(place.pid, place.born)) {
      place.pid = 0;
    }
  }
}

bool lived_on(const Page& page) {
  return std::any_of(std::begin(page.places), std::end(page.places), [](const Place& place) { return place.pid != 0; });
}

bool changed(const Page& page) {
  return page.squeezed != 0 || page.link != 0;
}

} // namespace simgpu::shared
