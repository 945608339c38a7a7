// Copies between pinned host memory and the card that the host has not waited for, while races are looked for.
//
// The dispatcher does not see what a program does to host memory, so two tricks stand for it: the source of a copy to the
// card is hashed when the copy is asked for and once more when it is sure to have ended; and what a copy from the card
// brings is kept back, the target filled with 0xFF (NaN in every floating type), until the host is sure.
//
// No call may be made under the engine's lock: memory is let go of, and that may run Python.
#pragma once

#include "shadow.h"
#include "timeline.h"
#include "vector_clock.h"

#include <ATen/core/Tensor.h>

#include <string>

namespace simgpu {

struct Flight {
  Epoch epoch;
  Nanoseconds end = 0;
  at::Tensor host; // a tensor of our own over the memory, which it holds, as torch's own pinned allocator does
  Region region;
  at::Tensor brought; // of a copy from the card: what the target will hold
  uint64_t hash = 0; // of a copy to the card: of the source as it was
};

// Before a copy that reads or writes host memory, and is ordered after all that used it: ends the flights there. As all
// calls below it returns what is wrong, in words; empty if nothing.
std::string land_before_use_of(const Region& host, bool writes);

// After the copy's bytes have moved: `host` was its source, respectively its target.
Flight take_off_up(const at::Tensor& host, Epoch epoch);
Flight take_off_down(const at::Tensor& host, Epoch epoch);
// The flight is under way until `end`. Ends flights whose time is over if there are many: an allocator that asks could use
// their memory again.
std::string follow(Flight flight, Nanoseconds end, Nanoseconds now);

// Ends all flights that the host knows to be over.
std::string land(const VectorClock& host_knows);

// Which copy, not known to have ended, uses these host bytes; empty if none.
std::string in_flight(const Region& host);

// Ends all flights from the card, and forgets the others.
void forget_flights();

} // namespace simgpu
