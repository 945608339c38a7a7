// What the fallback needs to know of an operation, read once from its schema.
#pragma once

#include "cost.h"

#include <ATen/core/dispatch/Dispatcher.h>

#include <cstdint>
#include <string>
#include <vector>

namespace simgpu {

enum class ArgumentKind : uint8_t { Tensor, TensorList, OptionalTensorList, Device, Generator };

struct ArgumentPlan {
  uint32_t index;
  ArgumentKind kind;
  bool written; // the operation changes it
  bool only_written; // and does not look at what was there: out=
  bool host_allowed; // CUDA accepts it on the host too: index tensors, lengths
};

struct OpPlan {
  std::string name; // aten::add.Tensor
  const char* label = ""; // the same, for ever
  FlopFormula flops = nullptr; // null: none that count
  Traffic traffic = Traffic::Whole;
  std::vector<ArgumentPlan> arguments; // the ones that matter, in order
  size_t argument_count = 0;
  size_t return_count = 0;
  bool view = false; // only a new look at old bytes: nothing runs on the card
  bool composite = false; // a composite that is run whole, above autograd as on the CPU
  bool host_waits = false; // the host needs the result's shape or value before it can go on
  bool host_waits_for_masks = false; // the same, but only if an index is a mask
};

const OpPlan& plan_of(const c10::OperatorHandle& op);

} // namespace simgpu
