// The card's random numbers: a CPU generator under the card's name, so that a seed gives the same numbers on both.
#pragma once

#include <ATen/core/Generator.h>

namespace simgpu {

at::Generator new_generator();
const at::Generator& default_generator();

// The CPU generator that draws the numbers; `generator` itself where it is not the card's.
at::Generator drawing(const at::Generator& generator);

} // namespace simgpu
