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

CopyJob describe(const at::Tensor& from, const at::Tensor& to, bool non_blocking) {
  const bool down = on_card(from) && !on_card(to);
  const bool up = !on_card(from) && on_card(to);
  const bool pinned = (up && is_pinned(bytes_of(from))) || (down && is_pinned(bytes_of(to)));
  return CopyJob{
      up ? Direction::HostToDevice : (down ? Direction::DeviceToHost : Direction::DeviceToDevice),
      from,
      to,
      // A copy that converts does so before it crosses the link, so what crosses has the target's type.
      to.numel() * static_cast<int64_t>(to.element_size()),
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
