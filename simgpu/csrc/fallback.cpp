#include "fallback.h"

#include "card.h"
#include "engine.h"
#include "generator.h"
#include "plan.h"
#include "twin.h"

#include <ATen/core/List.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/op_registration/adaption.h>
#include <ATen/ops/clone.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <exception>
#include <optional>
#include <utility>

namespace simgpu {
namespace {

// The arguments of one call on their way to the CPU.
class Call {
 public:
  Call(const c10::OperatorHandle& op, const OpPlan& plan, torch::jit::Stack& stack)
      : op_(op), plan_(plan), stack_(stack), first_(stack.size() - plan.argument_count) {}

  // Puts CPU twins in the place of device tensors. Throws where a tensor is left on another device.
  void show_to_cpu() {
    for (const ArgumentPlan& argument : plan_.arguments) {
      show(stack_[first_ + argument.index], argument);
    }
    if (C10_UNLIKELY(stray_.has_value()) && !twins_.all().empty()) {
      refuse_stray();
    }
  }

  void run() {
    if (plan_.view) {
      look();
      work();
      return;
    }
    const Cost cost = cost_of(plan_, Arguments(stack_.data() + first_, plan_.argument_count));
    launch(KernelJob{plan_, cost, twins_.all(), plan_.host_waits || saw_mask_}, [this] { work(); });
  }

 private:
  struct Stray {
    at::Tensor tensor;
    uint32_t index;
  };

  void work() {
    try {
      redispatch();
    } catch (...) {
      settle_quietly();
      throw;
    }
    bring_back();
  }

  // Puts device tensors in the place of what the CPU kernel returned.
  void bring_back() {
    twins_.settle();
    for (size_t i = stack_.size() - plan_.return_count; i < stack_.size(); ++i) {
      c10::IValue& value = stack_[i];
      if (value.isTensor()) {
        value = device_side(value.toTensor());
      } else if (value.isTensorList()) {
        c10::List<at::Tensor> tensors;
        for (const at::Tensor& each : value.toTensorVector()) {
          tensors.push_back(device_side(each));
        }
        value = std::move(tensors);
      }
    }
  }

  // After an error of the CPU kernel: written tensors may have been resized already, and must not be left half changed.
  void settle_quietly() noexcept {
    try {
      twins_.settle();
    } catch (...) { // the kernel's own error is the one to report
    }
  }

  void show(c10::IValue& value, const ArgumentPlan& argument) {
    switch (argument.kind) {
      case ArgumentKind::Tensor:
        if (value.isTensor()) {
          value = cpu_side(std::move(value).toTensor(), argument);
        }
        break;
      case ArgumentKind::TensorList:
        if (value.isTensorList()) {
          c10::List<at::Tensor> tensors;
          for (const at::Tensor& each : value.toTensorVector()) {
            tensors.push_back(cpu_side(each, argument));
          }
          value = std::move(tensors);
        }
        break;
      case ArgumentKind::OptionalTensorList:
        if (value.isList()) {
          c10::List<std::optional<at::Tensor>> tensors;
          for (const std::optional<at::Tensor>& each : value.toOptionalTensorVector()) {
            note_mask(each);
            tensors.push_back(each.has_value() ? std::optional(cpu_side(*each, argument)) : std::nullopt);
          }
          value = std::move(tensors);
        }
        break;
      case ArgumentKind::Device:
        if (value.isDevice() && value.toDevice().type() == kCard) {
          value = c10::Device(dry() ? c10::kMeta : c10::kCPU);
        }
        break;
      case ArgumentKind::Generator:
        value = drawing(value.isNone() ? default_generator() : value.toGenerator());
        break;
    }
  }

  at::Tensor cpu_side(at::Tensor tensor, const ArgumentPlan& argument) {
    if (!tensor.defined()) {
      return tensor;
    }
    if (C10_LIKELY(on_card(tensor))) {
      return twins_.add(std::move(tensor), argument.written);
    }
    const bool scalar = tensor.is_cpu() && tensor.dim() == 0;
    const bool allowed = tensor.is_cpu() && argument.host_allowed;
    if ((argument.written || !(scalar || allowed)) && !stray_) {
      stray_ = Stray{tensor, argument.index};
    }
    hosts_.push_back(tensor);
    return tensor;
  }

  void note_mask(const std::optional<at::Tensor>& index) {
    if (plan_.host_waits_for_masks && index && index->defined()) {
      saw_mask_ |= index->scalar_type() == at::kBool || index->scalar_type() == at::kByte;
    }
  }

  // In the words that CUDA uses, since programs and people look for them.
  [[noreturn]] void refuse_stray() {
    const std::string argument = op_.schema().arguments()[stray_->index].name();
    TORCH_CHECK(
        false,
        "Expected all tensors to be on the same device, but found at least two devices, ",
        card(),
        " and ",
        stray_->tensor.device(),
        "! (when checking argument for argument ",
        argument,
        " in method ",
        plan_.name,
        ")");
  }

  void redispatch() {
    const c10::DispatchKeySet keys(dry() ? c10::DispatchKey::Meta : c10::DispatchKey::CPU);
    if (plan_.composite) {
      const auto state = c10::impl::tls_local_dispatch_key_set();
      c10::impl::ForceDispatchKeyGuard above(state.included_, without_autograd(state.excluded_));
      op_.redispatchBoxed(keys, &stack_);
    } else {
      at::AutoDispatchBelowADInplaceOrView below;
      op_.redispatchBoxed(keys, &stack_);
    }
  }

  // What is excluded on the CPU where a composite is called: autograd never is, the view keys in inference mode only.
  static c10::DispatchKeySet without_autograd(c10::DispatchKeySet excluded) {
    return excluded -
        (c10::InferenceMode::is_enabled() ? c10::autograd_dispatch_keyset
                                          : c10::autograd_dispatch_keyset_with_ADInplaceOrView);
  }

  at::Tensor device_side(const at::Tensor& result) {
    // A host argument's own bytes must not become device memory.
    for (const at::Tensor& host : hosts_) {
      if (result.defined() && host.is_alias_of(result)) {
        return twins_.to_device(at::clone(result), plan_.name.c_str());
      }
    }
    return twins_.to_device(result, plan_.name.c_str());
  }

  const c10::OperatorHandle& op_;
  const OpPlan& plan_;
  torch::jit::Stack& stack_;
  const size_t first_;
  Twins twins_;
  c10::SmallVector<at::Tensor, 2> hosts_;
  std::optional<Stray> stray_;
  bool saw_mask_ = false;
};

} // namespace

void run_on_cpu(const c10::OperatorHandle& op, c10::DispatchKeySet /*keys*/, torch::jit::Stack* stack) {
  Call call(op, plan_of(op), *stack);
  call.show_to_cpu();
  call.run();
}

} // namespace simgpu
