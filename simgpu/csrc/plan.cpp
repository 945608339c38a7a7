#include "plan.h"

#include <ATen/core/enum_tag.h>
#include <ATen/core/function_schema.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <unordered_set>

namespace simgpu {
namespace {

std::optional<ArgumentKind> kind_of(const c10::Type& type) {
  switch (type.kind()) {
    case c10::TypeKind::TensorType:
      return ArgumentKind::Tensor;
    case c10::TypeKind::DeviceObjType:
      return ArgumentKind::Device;
    case c10::TypeKind::GeneratorType:
      return ArgumentKind::Generator;
    case c10::TypeKind::OptionalType:
      return kind_of(*type.castRaw<c10::OptionalType>()->getElementType());
    case c10::TypeKind::ListType: {
      const c10::Type& element = *type.castRaw<c10::ListType>()->getElementType();
      if (element.kind() == c10::TypeKind::TensorType) {
        return ArgumentKind::TensorList;
      }
      if (element.kind() == c10::TypeKind::OptionalType && kind_of(element) == ArgumentKind::Tensor) {
        return ArgumentKind::OptionalTensorList;
      }
      return std::nullopt;
    }
    default:
      return std::nullopt;
  }
}

bool writes(const c10::Argument& argument) {
  return argument.alias_info() != nullptr && argument.alias_info()->isWrite();
}

bool is_index_op(const std::string& name) {
  static const char* const names[] = {
      "aten::index",
      "aten::index_put",
      "aten::index_put_",
      "aten::_index_put_impl",
      "aten::_index_put_impl_",
      "aten::_unsafe_index",
      "aten::_unsafe_index_put"};
  return std::any_of(std::begin(names), std::end(names), [&](const char* each) { return name == each; });
}

bool host_allowed(const std::string& op, const std::string& argument) {
  return (argument == "indices" && is_index_op(op)) || argument == "batch_sizes" || argument == "input_lengths" ||
      argument == "target_lengths";
}

// Names outlive the threads that made the plans: what the race detector remembers points at them.
const char* kept(const std::string& name) {
  static std::mutex* mutex = new std::mutex();
  static auto* names = new std::unordered_set<std::string>(); // its elements never move
  std::lock_guard<std::mutex> lock(*mutex);
  return names->insert(name).first->c_str();
}

std::unique_ptr<OpPlan> make_plan(const c10::OperatorHandle& op) {
  const c10::FunctionSchema& schema = op.schema();
  auto plan = std::make_unique<OpPlan>();
  plan->name = c10::toString(op.operator_name());
  plan->label = kept(plan->name);
  plan->flops = flops_of(schema.name());
  plan->traffic = traffic_of(schema.name());
  plan->argument_count = schema.arguments().size();
  plan->return_count = schema.returns().size();
  bool any_written = false;
  for (size_t i = 0; i < schema.arguments().size(); ++i) {
    const c10::Argument& argument = schema.arguments()[i];
    if (const auto kind = kind_of(*argument.type())) {
      plan->arguments.push_back(
          {static_cast<uint32_t>(i),
           *kind,
           writes(argument),
           argument.is_out(),
           host_allowed(schema.name(), argument.name())});
      any_written |= writes(argument);
    }
  }
  const auto& returns = schema.returns();
  plan->view = !any_written && !returns.empty() &&
      std::all_of(returns.begin(), returns.end(), [](const c10::Argument& each) {
                 return each.alias_info() != nullptr && !each.alias_info()->isWrite();
               });
  plan->composite = op.hasKernelForDispatchKey(c10::DispatchKey::CompositeImplicitAutograd) &&
      !op.hasKernelForDispatchKey(c10::DispatchKey::CPU);
  const bool makes_tensors = std::any_of(returns.begin(), returns.end(), [](const c10::Argument& each) {
    const auto kind = kind_of(*each.type());
    return kind == ArgumentKind::Tensor || kind == ArgumentKind::TensorList;
  });
  if (!makes_tensors && !any_written && !op.hasTag(at::Tag::data_dependent_output)) {
    plan->traffic = Traffic::None; // a question about shapes or places: is_pinned, say
  }
  plan->host_waits = op.hasTag(at::Tag::dynamic_output_shape) || op.hasTag(at::Tag::data_dependent_output);
  if (is_index_op(schema.name())) {
    plan->host_waits = false;
    plan->host_waits_for_masks = true;
  }
  return plan;
}

} // namespace

const OpPlan& plan_of(const c10::OperatorHandle& op) {
  // One table a thread, so no lock. A schema's address can be used again after its library is gone, hence the names.
  thread_local std::unordered_map<const c10::FunctionSchema*, std::pair<c10::OperatorName, std::unique_ptr<OpPlan>>>
      plans;
  const c10::FunctionSchema& schema = op.schema();
  const auto found = plans.find(&schema);
  if (C10_LIKELY(found != plans.end())) {
    const auto& [name, plan] = found->second;
    if (C10_LIKELY(name == schema.operator_name() && plan->argument_count == schema.arguments().size())) {
      return *plan;
    }
    plans.erase(found);
  }
  auto& entry = plans.emplace(&schema, std::make_pair(schema.operator_name(), make_plan(op))).first->second;
  return *entry.second;
}

} // namespace simgpu
