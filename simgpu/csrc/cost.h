// What an operation costs: floating-point operations from its shapes, bytes from its arguments and results.
//
// Counted are convolutions, matrix products, attention and recurrent networks; everything else is taken to be bound by
// memory. Bytes are those of the elements that each tensor has, once if read, once if written; of what is only looked up
// or written in part (embedding, index_put_) the part.
#pragma once

#include "speeds.h"

#include <ATen/core/function_schema.h>
#include <ATen/core/ivalue.h>
#include <c10/util/ArrayRef.h>

#include <string>

namespace simgpu {

using Arguments = c10::ArrayRef<const c10::IValue>;
using FlopFormula = double (*)(Arguments);

// How much of its first argument an operation touches.
enum class Traffic : uint8_t {
  Whole, // all of it
  Gathers, // what it returns
  Scatters, // what it is given to put there
  Accumulates, // what it is given to add there
  Fills, // writes all of it and reads none
  None, // neither its arguments nor its results
};

// What is known of an operation from its name.
FlopFormula flops_of(const std::string& name);
Traffic traffic_of(const std::string& name);

struct Cost {
  double flops = 0;
  double bytes = 0; // without those of new results
  double per_result_byte = 1; // gathered bytes are read as well as written
  Number kind = Number::Single;
};

struct OpPlan;
Cost cost_of(const OpPlan& plan, Arguments arguments);

// Bytes of a dense tensor's elements, those that are there several times counted once.
double bytes_in(const at::Tensor& tensor);

} // namespace simgpu
