// Note: why operations are forced to the fallback
//
// An operation that has no kernel of the card's own reaches the backend fallback, unless torch has a composite version of
// it, which then wins. For most composites this is right: they break down into operations that the CPU would run too.
// Two kinds are not:
//  - operations with a CPU kernel *and* a composite: the CPU runs its kernel, the composite may differ in the last bits.
//    Their list follows torch's version, so the dispatcher is asked for it at load;
//  - composites that look at the device and choose another way for an unknown one (attention, recurrent networks,
//    convolution, rms_norm). These are named below.
#include "registry.h"

#include "fallback.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include <algorithm>

namespace simgpu {
namespace {

using c10::DispatchKey;

const std::vector<std::string>& device_dependent() {
  static const std::vector<std::string> names = {
      "aten::scaled_dot_product_attention",
      "aten::convolution",
      "aten::_convolution",
      "aten::convolution_backward",
      "aten::lstm",
      "aten::lstm_cell",
      "aten::gru",
      "aten::gru_cell",
      "aten::rnn_tanh",
      "aten::rnn_tanh_cell",
      "aten::rnn_relu",
      "aten::rnn_relu_cell",
      "aten::rms_norm", // one kernel on cards that have it fused
  };
  return names;
}

bool has_composite(const c10::OperatorHandle& op) {
  return op.hasKernelForDispatchKey(DispatchKey::CompositeImplicitAutograd) ||
      op.hasKernelForDispatchKey(DispatchKey::CompositeExplicitAutograd) ||
      op.hasKernelForDispatchKey(DispatchKey::CompositeExplicitAutogradNonFunctional);
}

bool must_be_forced(const c10::OperatorHandle& op) {
  const std::string& name = op.operator_name().name;
  if (name.rfind("aten::", 0) != 0 || !op.hasSchema() || op.hasKernelForDispatchKey(DispatchKey::PrivateUse1)) {
    return false;
  }
  const auto& named = device_dependent();
  return (op.hasKernelForDispatchKey(DispatchKey::CPU) && has_composite(op)) ||
      std::find(named.begin(), named.end(), name) != named.end();
}

// A composite that torch differentiates by breaking it down loses its derivative when it is run whole.
bool loses_derivative(const c10::OperatorHandle& op) {
  return op.hasKernelForDispatchKey(DispatchKey::CompositeImplicitAutograd) &&
      !op.hasKernelForDispatchKey(DispatchKey::Autograd) &&
      !op.hasKernelForDispatchKey(DispatchKey::AutogradPrivateUse1);
}

// Everything without a kernel of the card's own.
TORCH_LIBRARY_IMPL(_, PrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_cpu>());
}

} // namespace

// torch 2.9 has no autograd fallback for the card, and without one an operation registered for the CPU alone is refused.
void register_autograd_fallback() {
  if (!c10::Dispatcher::singleton().hasBackendFallbackForDispatchKey(DispatchKey::AutogradPrivateUse1)) {
    static torch::Library* autograd =
        new torch::Library(torch::Library::IMPL, "_", DispatchKey::AutogradPrivateUse1, __FILE__, __LINE__);
    autograd->fallback(torch::autograd::basicAutogradNotImplementedFallback());
  }
}

std::vector<std::string> register_forced_operations() {
  static torch::Library* forced =
      new torch::Library(torch::Library::IMPL, "aten", DispatchKey::PrivateUse1, __FILE__, __LINE__);
  static torch::Library* derivatives =
      new torch::Library(torch::Library::IMPL, "aten", DispatchKey::AutogradPrivateUse1, __FILE__, __LINE__);
  std::vector<std::string> names;
  auto& dispatcher = c10::Dispatcher::singleton();
  for (const c10::OperatorName& each : dispatcher.getAllOpNames()) {
    const auto op = dispatcher.findSchema(each);
    if (!op || !must_be_forced(*op)) {
      continue;
    }
    const std::string name = c10::toString(each);
    if (loses_derivative(*op)) {
      derivatives->impl(name.c_str(), torch::autograd::autogradNotImplementedFallback());
    }
    forced->impl(name.c_str(), torch::CppFunction::makeFromBoxedFunction<&run_on_cpu>());
    names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

} // namespace simgpu
