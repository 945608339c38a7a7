// What the host computes itself costs it time: a watcher of every operation that runs on CPU tensors tells the clock. In
// the model clock only; where the host's time is measured it is in there already.
//
// Of operations within operations the outermost counts that is not a composite without a formula of its own, so that
// nothing counts twice.
#include "observer.h"

#include "engine.h"
#include "plan.h"
#include "twin.h"

#include <ATen/record_function.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>

namespace simgpu {
namespace {

thread_local bool counting = false; // inside an operation that counts

struct Counted final : at::ObserverContext {
  explicit Counted(const OpPlan& plan, const Cost& cost) : plan(plan), cost(cost) {}
  const OpPlan& plan;
  const Cost cost;
};

struct Known {
  std::string name;
  std::optional<OpPlan> plan; // none: not an operation that counts
};

std::optional<OpPlan> plan_for(const at::RecordFunction& function) {
  const auto name = function.operator_name();
  const auto op = name ? c10::Dispatcher::singleton().findSchema(*name) : std::nullopt;
  if (!op) {
    return std::nullopt;
  }
  const OpPlan& plan = plan_of(*op);
  return plan.composite && plan.flops == nullptr ? std::nullopt : std::optional<OpPlan>(plan);
}

// A name's address is its operation's: one look-up each, and one comparison against a library that was unloaded.
const std::optional<OpPlan>& plan_of_function(const at::RecordFunction& function) {
  thread_local std::unordered_map<const char*, Known> known;
  const char* name = function.name();
  const auto found = known.find(name);
  if (found != known.end() && found->second.name == name) {
    return found->second.plan;
  }
  return known.insert_or_assign(name, Known{name, plan_for(function)}).first->second.plan;
}

// Fake tensors, with which torch.compile tries out what comes of a call, compute nothing.
bool is_fake(const at::Tensor& tensor) {
  return tensor.unsafeGetTensorImpl()->key_set().has(c10::DispatchKey::Python);
}

bool dense_on_host(const at::Tensor& tensor) {
  return !tensor.defined() ||
      (tensor.is_cpu() && tensor.layout() == c10::kStrided && !tensor.is_nested() && !is_fake(tensor));
}

bool dense_on_host(const c10::IValue& value) {
  if (value.isTensor()) {
    return dense_on_host(value.toTensor());
  }
  if (value.isTensorList()) {
    const auto tensors = value.toTensorVector();
    return std::all_of(tensors.begin(), tensors.end(), [](const at::Tensor& each) { return dense_on_host(each); });
  }
  return true;
}

bool dense_on_host(Arguments values) {
  return std::all_of(values.begin(), values.end(), [](const c10::IValue& each) { return dense_on_host(each); });
}

// Most often the first argument tells.
bool begins_on_the_card(Arguments inputs) {
  return !inputs.empty() && inputs[0].isTensor() && inputs[0].toTensor().is_privateuseone();
}

std::unique_ptr<at::ObserverContext> begin(const at::RecordFunction& function) {
  if (counting || CardsWork::inside() || host_clock() != HostClock::Model || begins_on_the_card(function.inputs())) {
    return nullptr;
  }
  const auto& plan = plan_of_function(function);
  const Arguments inputs = function.inputs();
  if (!plan || inputs.size() != plan->argument_count || !dense_on_host(inputs)) {
    return nullptr;
  }
  auto counted = std::make_unique<Counted>(*plan, plan->view ? Cost{} : cost_of(*plan, inputs));
  counting = true; // only now: what throws here is swallowed by torch, and `end` is not called
  return counted;
}

Arguments results_of(const at::RecordFunction& function) {
  return Arguments(function.outputs().data(), function.outputs().size());
}

double new_bytes(const at::RecordFunction& function, const OpPlan& plan) {
  double bytes = 0;
  for (const c10::IValue& value : results_of(function)) {
    if (value.isTensor() && value.toTensor().defined() && value.toTensor().has_storage()) {
      bytes += bytes_in(value.toTensor());
    }
  }
  const bool writes = std::any_of(
      plan.arguments.begin(), plan.arguments.end(), [](const ArgumentPlan& each) { return each.written; });
  return plan.view || writes ? 0 : bytes; // what is written was counted among the arguments
}

void end(const at::RecordFunction& function, at::ObserverContext* context) {
  if (context == nullptr) {
    return;
  }
  counting = false;
  const auto& counted = *static_cast<Counted*>(context);
  if (!dense_on_host(results_of(function))) {
    return; // made on the card, which has counted it
  }
  if (counted.plan.view) {
    look();
  } else {
    compute_on_host(counted.cost, new_bytes(function, counted.plan));
  }
}

std::optional<at::CallbackHandle> handle;

} // namespace

void watch_host(bool on) {
  if (on == handle.has_value()) {
    return;
  }
  if (!on) {
    at::removeCallback(*handle);
    handle.reset();
    return;
  }
  handle = at::addGlobalCallback(at::RecordFunctionCallback(begin, end)
                                     .needsInputs(true)
                                     .needsOutputs(true)
                                     .scopes({at::RecordScope::FUNCTION}));
}

} // namespace simgpu
