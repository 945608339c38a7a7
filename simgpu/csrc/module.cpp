// The python module simgpu._C: plain numbers in and out; everything else is torch's own interface.
#include "block.h"
#include "card.h"
#include "engine.h"
#include "generator.h"
#include "ledger.h"
#include "pinned.h"
#include "registry.h"
#include "streams.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/library.h>

namespace simgpu {
namespace {

// The default generator's state as a tensor: operations, so that this module needs none of torch's python headers.
at::Tensor rng_state() {
  return default_generator().get_state();
}

void set_rng_state(const at::Tensor& state) {
  at::Generator(default_generator()).set_state(state);
}

TORCH_LIBRARY(simgpu, m) {
  m.def("rng_state() -> Tensor", rng_state);
  m.def("set_rng_state(Tensor state) -> ()", set_rng_state);
}

pybind11::dict counted() {
  const Counters now = counters();
  pybind11::dict all;
  all["h2d_bytes"] = now.h2d_bytes;
  all["d2h_bytes"] = now.d2h_bytes;
  all["d2d_bytes"] = now.d2d_bytes;
  all["h2d_copies"] = now.h2d_copies;
  all["d2h_copies"] = now.d2h_copies;
  all["d2d_copies"] = now.d2d_copies;
  all["kernels"] = now.kernels;
  all["host_blocking_calls"] = now.host_blocking_calls;
  return all;
}

} // namespace
} // namespace simgpu

PYBIND11_MODULE(_C, m) {
  using namespace simgpu;
  register_autograd_fallback();
  const auto forced = register_forced_operations();
  m.def("forced_operations", [forced] { return forced; });
  m.def("set_capacity", [](size_t bytes) { Ledger::instance().set_capacity(bytes); });
  m.def("capacity", [] { return Ledger::instance().capacity(); });
  m.def("free", [] { return Ledger::instance().free(); });
  m.def("set_fill_freed", &set_fill_freed);
  m.def("fill_freed", &fill_freed);
  m.def("counters", &counted);
  m.def("reset_counters", &reset_counters);
  m.def("manual_seed", [](uint64_t seed) { at::Generator(default_generator()).set_current_seed(seed); });
  m.def("seed", [] { return at::Generator(default_generator()).seed(); });
  m.def("initial_seed", [] { return default_generator().current_seed(); });
}
