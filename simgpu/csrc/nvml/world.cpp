// A door in C to the shared card, for programs without torch: the command line plays the world, tests play neighbours.
//
// Every function returns 0, or 2 for what a person asked wrongly, or 1 for what went wrong, with the reason in `text`.
// Card and profile may be null: the environment says them.
#include "builtin.h"
#include "json.h"
#include "shared/words.h"

#include <cstdio>

#define WORLD_CALL extern "C" __attribute__((visibility("default")))

using namespace simgpu::nvml;
using simgpu::shared::BadInput;
using simgpu::shared::Card;
using simgpu::shared::Snapshot;

namespace {

constexpr int kDone = 0, kFault = 1, kBadInput = 2;

int say(char* text, unsigned length, const std::string& what, int code) {
  const int needed = std::snprintf(text, length, "%s", what.c_str());
  return needed < 0 || static_cast<unsigned>(needed) >= length ? kFault : code;
}

// Runs a body that returns a text.
template <typename Body>
int told(char* text, unsigned length, Body body) noexcept {
  try {
    return say(text, length, body(), kDone);
  } catch (const BadInput& error) {
    return say(text, length, error.what(), kBadInput);
  } catch (const std::exception& error) {
    return say(text, length, error.what(), kFault);
  }
}

BadInput nobody_there(const Asked& which) {
  return BadInput(
      "simgpu: nobody uses the card \"" + which.card + "\", and the profile " + which.profile +
      " is a file; start a program on it first, or choose a built-in profile (simgpu profiles)");
}

// The card as it is used, whatever its profile; else made as the profile says.
Card used_or_made(const Asked& which) {
  Card found = Card::find(which.card);
  if (found) {
    return found;
  }
  if (!which.model) {
    throw nobody_there(which);
  }
  return Card::open(which.card, *which.model);
}

Snapshot look(const Asked& which) {
  if (Card found = Card::find(which.card)) {
    return found.look();
  }
  if (!which.model) {
    throw nobody_there(which);
  }
  Snapshot now;
  now.model = *which.model;
  now.link = {now.model.link_generation, now.model.link_width};
  now.idle = true;
  return now;
}

} // namespace

WORLD_CALL int simgpuWorldSqueeze(
    const char* card, const char* profile, const char* size, char* text, unsigned length) {
  return told(text, length, [&] {
    const uint64_t bytes = simgpu::shared::parse_size(size, "SIZE");
    used_or_made(asked(card, profile)).squeeze(bytes);
    return std::string();
  });
}

WORLD_CALL int simgpuWorldRelease(const char* card, const char* profile, char* text, unsigned length) {
  return told(text, length, [&] {
    if (Card found = Card::find(asked(card, profile).card)) {
      found.release();
    }
    return std::string();
  });
}

WORLD_CALL int simgpuWorldLink(
    const char* card, const char* profile, const char* link, char* text, unsigned length) {
  return told(text, length, [&] {
    Card world = used_or_made(asked(card, profile));
    world.set_link(simgpu::shared::parse_link(link, world.link()));
    return std::string();
  });
}

// The text is JSON.
WORLD_CALL int simgpuWorldStatus(const char* card, const char* profile, char* text, unsigned length) {
  return told(text, length, [&] {
    const Asked which = asked(card, profile);
    return json_of(which.card, look(which));
  });
}

WORLD_CALL int simgpuWorldProfiles(char* text, unsigned length) {
  return told(text, length, [] { return json_of_profiles(); });
}

// A process's own part of a card: opened, used, closed.
WORLD_CALL int simgpuCardOpen(const char* card, const char* profile, void** to, char* text, unsigned length) {
  return told(text, length, [&] {
    const Asked which = asked(card, profile);
    if (!which.model) {
      throw nobody_there(which);
    }
    *to = new Card(Card::open(which.card, *which.model));
    return std::string();
  });
}

WORLD_CALL int simgpuCardReserve(void* card, uint64_t bytes, int anyway, int* taken, char* text, unsigned length) {
  return told(text, length, [&] {
    Card& mine = *static_cast<Card*>(card);
    *taken = anyway != 0 ? (mine.reserve_anyway(bytes), 1) : mine.reserve(bytes);
    return std::string();
  });
}

WORLD_CALL void simgpuCardGiveBack(void* card, uint64_t bytes) {
  static_cast<Card*>(card)->give_back(bytes);
}

WORLD_CALL int simgpuCardReport(
    void* card, uint64_t busy_ns, uint64_t copy_ns, uint64_t now_ns, char* text, unsigned length) {
  return told(text, length, [&] {
    static_cast<Card*>(card)->report(busy_ns, copy_ns, now_ns);
    return std::string();
  });
}

WORLD_CALL uint64_t simgpuCardReserved(void* card) {
  return static_cast<Card*>(card)->reserved();
}

WORLD_CALL int simgpuCardSetCapacity(void* card, uint64_t bytes, char* text, unsigned length) {
  return told(text, length, [&] {
    static_cast<Card*>(card)->set_capacity(bytes);
    return std::string();
  });
}

WORLD_CALL void simgpuCardLeave(void* card) {
  static_cast<Card*>(card)->leave();
}

WORLD_CALL void simgpuCardClose(void* card) {
  delete static_cast<Card*>(card);
}
