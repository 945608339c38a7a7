// Copies: between host and card, on the card, and of single values to the host.
#include "card.h"
#include "engine.h"
#include "pinned.h"
#include "twin.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/_local_scalar_dense.h>
#include <torch/library.h>

namespace simgpu {
namespace {

void check_place(const at::Tensor& tensor) {
  TORCH_CHECK(
      on_card(tensor) || tensor.is_cpu(), "simgpu copies to and from the CPU only, not ", tensor.device());
}

const void* bytes_of(const at::Tensor& tensor) {
  return tensor.has_storage() ? tensor.storage().data() : nullptr;
}

// Whether the elements lie in both in the same order, without gaps, so that their bytes can be copied as they are.
bool bytewise(const at::Tensor& from, const at::Tensor& to) {
  if (from.scalar_type() != to.scalar_type() || from.sizes() != to.sizes() || from.is_conj() != to.is_conj() ||
      from.is_neg() != to.is_neg() || !from.is_non_overlapping_and_dense() || !to.is_non_overlapping_and_dense()) {
    return false;
  }
  for (int64_t d = 0; d < from.dim(); ++d) {
    if (from.size(d) > 1 && from.stride(d) != to.stride(d)) {
      return false;
    }
  }
  return true;
}

CopyJob describe(const at::Tensor& from, const at::Tensor& to, bool non_blocking) {
  const bool down = on_card(from) && !on_card(to);
  const bool up = !on_card(from) && on_card(to);
  const at::Tensor& host = up ? from : to;
  // The card can gather and scatter its own side, so only the host's has to be as it crosses; types are converted on the
  // host (PyTorch's Copy.cu).
  const bool alike = from.scalar_type() == to.scalar_type() && from.sizes() == to.sizes() && host.is_contiguous();
  const bool staged = (up || down) && !alike && !bytewise(from, to);
  const bool pinned = (up || down) && !staged && is_pinned(bytes_of(host));
  const at::Tensor& crossing = down ? from : to; // on the way up converted before, on the way down after
  return CopyJob{
      up ? Direction::HostToDevice : (down ? Direction::DeviceToHost : Direction::DeviceToDevice),
      from,
      to,
      to.numel() * static_cast<int64_t>(crossing.element_size()),
      staged,
      pinned,
      // Pageable memory is staged by the host, so the host waits for it whatever it asked for.
      (up || down) && !(pinned && non_blocking)};
}

at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool non_blocking) {
  check_place(from);
  check_place(to);
  copy(describe(from, to, non_blocking), [&] {
    at::AutoDispatchBelowADInplaceOrView below;
    const at::Tensor source = on_card(from) ? cpu_view(from) : from;
    const at::Tensor target = on_card(to) ? cpu_view(to) : to;
    target.copy_(source);
  });
  return to;
}

at::Tensor copy_from_and_resize(const at::Tensor& from, const at::Tensor& to) {
  to.resize_(from.sizes());
  return copy_from(from, to, /*non_blocking=*/false);
}

at::Scalar local_scalar(const at::Tensor& tensor) {
  const at::Tensor nowhere;
  const CopyJob job = {
      Direction::DeviceToHost,
      tensor,
      nowhere,
      static_cast<int64_t>(tensor.element_size()),
      /*staged=*/false,
      /*pinned=*/false,
      /*host_blocking=*/true};
  at::Scalar value(0); // what a dry run gives
  copy(job, [&] {
    at::AutoDispatchBelowADInplaceOrView below;
    value = at::_local_scalar_dense(cpu_view(tensor));
  });
  return value;
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("_copy_from", TORCH_FN(copy_from));
  m.impl("_copy_from_and_resize", TORCH_FN(copy_from_and_resize));
  m.impl("_local_scalar_dense", TORCH_FN(local_scalar));
}

// Conjugate and negative views are copied as such: the CPU's own copy resolves them.
TORCH_LIBRARY_IMPL(aten, Conjugate, m) {
  m.impl("_copy_from", torch::CppFunction::makeFallthrough());
}

TORCH_LIBRARY_IMPL(aten, Negative, m) {
  m.impl("_copy_from", torch::CppFunction::makeFallthrough());
}

} // namespace
} // namespace simgpu
