// Race detection: every use of device and of pinned memory is checked against the uses before it.
//
// Two uses of a byte, one of them a write, must be ordered: by a stream, by an event that is waited for, or by the host
// having waited. What is checked is the order that the program asked for, not the one that virtual time gave it, so a
// race is found also where it happened to go well. All calls need the engine's lock (engine.h).
#pragma once

#include "shadow.h"
#include "streams.h"

#include <memory>
#include <string>
#include <vector>

namespace simgpu {

void set_race_detection(bool on);
bool detecting_races();

// A piece of work that is being put on a stream.
struct Work {
  StreamState& stream;
  Epoch epoch;
  const char* operation;
};

enum class Place { Device, Pinned };

// Notes that `work` uses `region` of the block with that shadow; `host` is what the host knows to be over. Returns what is
// wrong with it, in words; empty if nothing.
std::string note_use(
    Shadow& shadow, Place place, const Region& region, AccessKind kind, const Work& work, const VectorClock& host);

// Freed memory goes to the next block of the same stream that it fits, as a caching allocator has it, and with it what may
// still be using it, as far as the host does not know it to be over.
void leave_behind(uint32_t owner, size_t bytes, std::vector<Access> uses, const VectorClock& host);
std::vector<Access> tenants_before(uint32_t owner, size_t bytes);
void forget_tenants();

// Raises simgpu.RaceError with `what` and the Python line that asked for it. Takes the GIL: the lock must not be held.
[[noreturn]] void raise_race(const std::string& what);
// The Python class that raise_race raises.
void set_race_error(void* python_class);

} // namespace simgpu
