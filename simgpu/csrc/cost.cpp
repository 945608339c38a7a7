#include "cost.h"

#include "plan.h"

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <exception>
#include <optional>
#include <unordered_map>

namespace simgpu {
namespace {

const at::Tensor& tensor(Arguments arguments, size_t i) {
  return arguments[i].toTensor();
}

double numel(Arguments arguments, size_t i) {
  return static_cast<double>(tensor(arguments, i).numel());
}

double last(const at::Tensor& t) {
  return t.dim() == 0 ? 1 : static_cast<double>(t.size(-1));
}

// (m x k) (k x n), with A the argument (m x k), batched or not.
template <size_t A, size_t B>
double product(Arguments arguments) {
  return 2 * numel(arguments, A) * last(tensor(arguments, B));
}

// (m x k) (k), and the inner product.
template <size_t A>
double product_with_vector(Arguments arguments) {
  return 2 * numel(arguments, A);
}

// As matmul broadcasts: what either side has more of in its batch dimensions counts.
double matmul(Arguments arguments) {
  const at::Tensor &a = tensor(arguments, 0), &b = tensor(arguments, 1);
  if (a.dim() == 0 || b.dim() == 0) {
    return 0;
  }
  const double k = last(a), m = a.dim() > 1 ? static_cast<double>(a.size(-2)) : 1;
  const double n = b.dim() > 1 ? last(b) : 1;
  double batch = 1;
  for (int64_t d = 3; d <= std::max(a.dim(), b.dim()); ++d) {
    batch *= static_cast<double>(std::max(d <= a.dim() ? a.size(-d) : 1, d <= b.dim() ? b.size(-d) : 1));
  }
  return 2 * batch * m * n * k;
}

double linear(Arguments arguments) {
  const at::Tensor& weight = tensor(arguments, 1);
  return 2 * numel(arguments, 0) * (weight.dim() > 1 ? static_cast<double>(weight.size(0)) : 1);
}

int64_t at_or_last(const c10::IValue& list, size_t i) {
  const auto values = list.toIntVector();
  return values.empty() ? 1 : values[std::min(i, values.size() - 1)];
}

// Every output element takes a window of the weight; transposed, every input element does. `first` is where stride,
// padding, dilation and `transposed` begin among the arguments.
double windows_over(const at::Tensor& input, const at::Tensor& weight, Arguments arguments, size_t first) {
  const bool batched = input.dim() == weight.dim();
  if (weight.dim() < 3 || (!batched && input.dim() != weight.dim() - 1)) {
    return 0; // the kernel will refuse it
  }
  double windows = batched ? static_cast<double>(input.size(0)) : 1;
  const bool transposed = arguments[first + 3].toBool();
  for (int64_t d = 2; d < weight.dim(); ++d) {
    const auto i = static_cast<size_t>(d - 2);
    const int64_t side = input.size(d - (batched ? 0 : 1)), window = weight.size(d);
    const int64_t stride = std::max<int64_t>(1, at_or_last(arguments[first], i));
    const int64_t reach = at_or_last(arguments[first + 2], i) * (window - 1) + 1;
    const int64_t steps = (side + 2 * at_or_last(arguments[first + 1], i) - reach) / stride + 1;
    windows *= static_cast<double>(std::max<int64_t>(0, transposed ? side : steps));
  }
  return windows;
}

double convolution(Arguments arguments) {
  return 2 * windows_over(tensor(arguments, 0), tensor(arguments, 1), arguments, 3) * numel(arguments, 1);
}

// As much again for each of the two gradients that are wanted.
double convolution_backward(Arguments arguments) {
  const auto wanted = arguments[10].toBoolList();
  const double passes = (wanted.get(0) ? 1 : 0) + (wanted.get(1) ? 1 : 0);
  return 2 * passes * windows_over(tensor(arguments, 1), tensor(arguments, 2), arguments, 4) * numel(arguments, 2);
}

// q k^T and the product with v; half of both where the mask is causal, since kernels skip the rest.
double attention(Arguments arguments) {
  const at::Tensor &q = tensor(arguments, 0), &k = tensor(arguments, 1), &v = tensor(arguments, 2);
  if (q.dim() < 2 || k.dim() < 2) {
    return 0;
  }
  const double scores = static_cast<double>(q.numel()) / last(q) * static_cast<double>(k.size(-2));
  // The first truth value is is_causal in all of them.
  const auto flag = std::find_if(arguments.begin(), arguments.end(), [](const c10::IValue& each) { return each.isBool(); });
  const bool causal = flag != arguments.end() && flag->toBool();
  return 2 * scores * (last(q) + last(v)) * (causal ? 0.5 : 1);
}

double matrices_in(const c10::IValue& value) {
  double sum = 0;
  if (value.isTensorList()) {
    for (const at::Tensor& each : value.toTensorVector()) {
      sum += each.dim() == 2 ? static_cast<double>(each.numel()) : 0;
    }
  } else if (value.isTensor() && value.toTensor().defined() && value.toTensor().dim() == 2) {
    sum = static_cast<double>(value.toTensor().numel());
  }
  return sum;
}

// Every token meets every weight once. The weights are the last list of tensors.
double recurrent(Arguments arguments) {
  const double tokens = numel(arguments, 0) / std::max(1.0, last(tensor(arguments, 0)));
  for (size_t i = arguments.size(); i-- > 1;) {
    if (arguments[i].isTensorList()) {
      return 2 * tokens * matrices_in(arguments[i]);
    }
  }
  return 0;
}

double recurrent_cell(Arguments arguments) {
  const double tokens = numel(arguments, 0) / std::max(1.0, last(tensor(arguments, 0)));
  return 2 * tokens * (matrices_in(arguments[2]) + matrices_in(arguments[3]));
}

double projected_attention(const at::Tensor& q, double keys, double weights) {
  const double tokens = static_cast<double>(q.numel()) / std::max(1.0, last(q));
  return 2 * tokens * weights + 4 * tokens * keys * last(q);
}

double multi_head_attention(Arguments arguments) {
  const at::Tensor& q = tensor(arguments, 0);
  const double keys = static_cast<double>(tensor(arguments, 1).size(-2));
  return projected_attention(q, keys, numel(arguments, 5) + numel(arguments, 7));
}

double encoder_layer(Arguments arguments) {
  const at::Tensor& src = tensor(arguments, 0);
  const double weights =
      numel(arguments, 3) + numel(arguments, 5) + matrices_in(arguments[14]) + matrices_in(arguments[16]);
  return projected_attention(src, static_cast<double>(src.size(-2)), weights);
}

const std::unordered_map<std::string, FlopFormula>& formulas() {
  static const auto* all = new std::unordered_map<std::string, FlopFormula>{
      {"aten::mm", &product<0, 1>},
      {"aten::bmm", &product<0, 1>},
      {"aten::_int_mm", &product<0, 1>},
      {"aten::_scaled_mm", &product<0, 1>},
      {"aten::addmm", &product<1, 2>},
      {"aten::addmm_", &product<1, 2>},
      {"aten::_addmm_activation", &product<1, 2>},
      {"aten::addbmm", &product<1, 2>},
      {"aten::baddbmm", &product<1, 2>},
      {"aten::baddbmm_", &product<1, 2>},
      {"aten::mv", &product_with_vector<0>},
      {"aten::dot", &product_with_vector<0>},
      {"aten::vdot", &product_with_vector<0>},
      {"aten::addmv", &product_with_vector<1>},
      {"aten::addmv_", &product_with_vector<1>},
      {"aten::matmul", &matmul},
      {"aten::linear", &linear},
      {"aten::convolution", &convolution},
      {"aten::_convolution", &convolution},
      {"aten::convolution_overrideable", &convolution},
      {"aten::convolution_backward", &convolution_backward},
      {"aten::scaled_dot_product_attention", &attention},
      {"aten::_scaled_dot_product_flash_attention_for_cpu", &attention},
      {"aten::_scaled_dot_product_attention_math", &attention},
      {"aten::lstm", &recurrent},
      {"aten::gru", &recurrent},
      {"aten::rnn_tanh", &recurrent},
      {"aten::rnn_relu", &recurrent},
      {"aten::lstm_cell", &recurrent_cell},
      {"aten::gru_cell", &recurrent_cell},
      {"aten::rnn_tanh_cell", &recurrent_cell},
      {"aten::rnn_relu_cell", &recurrent_cell},
      {"aten::_native_multi_head_attention", &multi_head_attention},
      {"aten::_transformer_encoder_layer_fwd", &encoder_layer},
  };
  return *all;
}

const std::unordered_map<std::string, Traffic>& traffics() {
  static const auto* all = new std::unordered_map<std::string, Traffic>{
      {"aten::embedding", Traffic::Gathers},
      {"aten::embedding_bag", Traffic::Gathers},
      {"aten::_embedding_bag", Traffic::Gathers},
      {"aten::index", Traffic::Gathers},
      {"aten::_unsafe_index", Traffic::Gathers},
      {"aten::index_select", Traffic::Gathers},
      {"aten::gather", Traffic::Gathers},
      {"aten::take", Traffic::Gathers},
      {"aten::take_along_dim", Traffic::Gathers},
      {"aten::index_put_", Traffic::Scatters},
      {"aten::_index_put_impl_", Traffic::Scatters},
      {"aten::index_copy_", Traffic::Scatters},
      {"aten::index_add_", Traffic::Accumulates},
      {"aten::index_fill_", Traffic::Scatters},
      {"aten::scatter_", Traffic::Scatters},
      {"aten::scatter_add_", Traffic::Accumulates},
      {"aten::scatter_reduce_", Traffic::Accumulates},
      {"aten::empty", Traffic::None},
      {"aten::empty_like", Traffic::None},
      {"aten::empty_strided", Traffic::None},
      {"aten::new_empty", Traffic::None},
      {"aten::new_empty_strided", Traffic::None},
      {"aten::resize_", Traffic::None},
      {"aten::set_", Traffic::None},
      {"aten::copy_", Traffic::Fills},
      {"aten::fill_", Traffic::Fills},
      {"aten::zero_", Traffic::Fills},
      {"aten::normal_", Traffic::Fills},
      {"aten::uniform_", Traffic::Fills},
      {"aten::random_", Traffic::Fills},
      {"aten::bernoulli_", Traffic::Fills},
      {"aten::exponential_", Traffic::Fills},
      {"aten::log_normal_", Traffic::Fills},
      {"aten::cauchy_", Traffic::Fills},
      {"aten::geometric_", Traffic::Fills},
  };
  return *all;
}

// How often an argument's bytes move.
double times(const OpPlan& plan, const ArgumentPlan& argument, const at::Tensor& tensor) {
  const bool first = argument.index == 0;
  switch (plan.traffic) {
    case Traffic::None:
      return 0;
    case Traffic::Gathers:
      return first ? 0 : 1;
    case Traffic::Scatters:
    case Traffic::Accumulates: // an index is read, a value read and written, or read, added and written
      if (first || tensor.dtype() == at::kLong || tensor.dtype() == at::kInt || tensor.dtype() == at::kBool) {
        return first ? 0 : 1;
      }
      return plan.traffic == Traffic::Scatters ? 2 : 3;
    case Traffic::Fills:
      return 1;
    case Traffic::Whole:
      break;
  }
  return argument.written && !argument.only_written ? 2 : 1;
}

class Tally {
 public:
  explicit Tally(const OpPlan& plan) : plan_(plan) {}

  void add(const at::Tensor& tensor, const ArgumentPlan& argument) {
    if (!tensor.defined() || !tensor.has_storage()) {
      return;
    }
    cost.bytes += times(plan_, argument, tensor) * bytes_in(tensor);
    const bool floating = tensor.is_floating_point() || tensor.is_complex();
    if (!seen_ || (floating && !seen_floating_)) { // the first of floating type counts, else the first of all
      cost.kind = kind_of(tensor.scalar_type());
      per_product_ = tensor.is_complex() ? 4 : 1; // a complex product is four real ones
    }
    seen_ = true;
    seen_floating_ |= floating;
  }

  void compute(Arguments arguments) {
    try {
      cost.flops = plan_.flops != nullptr ? per_product_ * plan_.flops(arguments) : 0;
    } catch (const std::exception&) { // arguments that no formula knows; the kernel has the better error
      cost.flops = 0;
    }
  }

  Cost cost;

 private:
  const OpPlan& plan_;
  double per_product_ = 1;
  bool seen_ = false, seen_floating_ = false;
};

} // namespace

double bytes_in(const at::Tensor& tensor) {
  int64_t elements = 1;
  const auto sizes = tensor.sizes(), strides = tensor.strides();
  for (size_t d = 0; d < sizes.size(); ++d) {
    elements *= strides[d] == 0 && sizes[d] > 0 ? 1 : sizes[d];
  }
  // Windows that overlap look at the same bytes.
  return std::min(
      static_cast<double>(elements) * static_cast<double>(tensor.element_size()),
      static_cast<double>(tensor.unsafeGetTensorImpl()->unsafe_storage().nbytes()));
}

FlopFormula flops_of(const std::string& name) {
  const auto found = formulas().find(name);
  return found == formulas().end() ? nullptr : found->second;
}

Traffic traffic_of(const std::string& name) {
  const auto found = traffics().find(name);
  return found == traffics().end() ? Traffic::Whole : found->second;
}

Cost cost_of(const OpPlan& plan, Arguments arguments) {
  Tally tally(plan);
  for (const ArgumentPlan& argument : plan.arguments) {
    const c10::IValue& value = arguments[argument.index];
    if (argument.kind == ArgumentKind::Tensor && value.isTensor()) {
      tally.add(value.toTensor(), argument);
    } else if (argument.kind == ArgumentKind::TensorList && value.isTensorList()) {
      for (const at::Tensor& each : value.toTensorVector()) {
        tally.add(each, argument);
      }
    } else if (argument.kind == ArgumentKind::OptionalTensorList && value.isList()) {
      for (const std::optional<at::Tensor>& each : value.toOptionalTensorVector()) {
        tally.add(each.value_or(at::Tensor()), argument);
      }
    }
  }
  tally.compute(arguments);
  tally.cost.per_result_byte = plan.traffic == Traffic::Gathers ? 2 : (plan.traffic == Traffic::None ? 0 : 1);
  return tally.cost;
}

} // namespace simgpu
