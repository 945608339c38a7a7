// Copies between pinned host memory and the card that the host has not waited for, while races are looked for.
//
// The dispatcher does not see what a program does to host memory, so two tricks stand for it: the source of a copy to the
// card is hashed when the copy is asked for and once more when the host is sure that it has ended; and what a copy from
// the card brings is kept back, the target filled with 0xFF (NaN in every floating type), until the host is sure.
#pragma once

#include "shadow.h"
#include "timeline.h"
#include "vector_clock.h"

#include <ATen/core/Tensor.h>

#include <string>

namespace simgpu {

// Before a copy reads or writes host memory: brings there what earlier copies hold back.
void land_before_use_of(const Region& host);

// After a copy: `host` was its source, respectively its target, on the CPU.
void note_source_in_flight(const at::Tensor& host, Epoch epoch, Nanoseconds end);
void hold_back(const at::Tensor& host, Epoch epoch);

// Ends all flights that the host knows to be over. Returns what is wrong, in words; empty if nothing.
std::string land(const VectorClock& host_knows);
// Ends flights whose time is over, if there are many: their memory could be used again by an allocator that asks.
std::string land_old(Nanoseconds now);

// Which copy, not known to have ended, uses these host bytes; empty if none.
std::string in_flight(const Region& host);

void forget_flights();

} // namespace simgpu
