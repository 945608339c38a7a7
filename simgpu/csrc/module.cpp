// The python module simgpu._C: plain numbers in and out; everything else is torch's own interface.
#include "block.h"
#include "card.h"
#include "engine.h"
#include "generator.h"
#include "host.h"
#include "ledger.h"
#include "observer.h"
#include "pinned.h"
#include "races.h"
#include "registry.h"
#include "streams.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/library.h>

#include <array>
#include <string>
#include <utility>

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
  static const char* const ways[] = {"h2d", "d2h", "d2d"};
  static const char* const engines[] = {"compute", "h2d", "d2h"};
  pybind11::dict all;
  for (size_t i = 0; i < 3; ++i) {
    all[pybind11::str(std::string(ways[i]) + "_bytes")] = now.bytes[i];
    all[pybind11::str(std::string(ways[i]) + "_copies")] = now.copies[i];
  }
  all["kernels"] = now.kernels;
  all["host_blocking_calls"] = now.host_blocking_calls;
  for (size_t i = 0; i < kEngines; ++i) {
    all[pybind11::str(std::string(engines[i]) + "_busy_ns")] = now.engines[i].busy;
    all[pybind11::str(std::string(engines[i]) + "_stalled_ns")] = now.engines[i].stalled;
    all[pybind11::str(std::string(engines[i]) + "_starved_ns")] = now.engines[i].starved;
  }
  return all;
}

using Numbers = std::array<double, kNumbers>;

Processor processor(const Numbers& flops, double bytes, Nanoseconds launch) {
  return Processor{flops, bytes, launch};
}

shared::Model model(const std::string& profile, const std::string& name, const std::string& uuid, uint64_t capacity,
                    uint32_t generation, uint32_t width, uint32_t power_limit_mw, std::pair<uint32_t, uint32_t> compute) {
  shared::Model all;
  all.profile = profile;
  all.name = name;
  all.uuid = uuid;
  all.capacity = capacity;
  all.link_generation = generation;
  all.link_width = width;
  all.power_limit_mw = power_limit_mw;
  all.compute_major = compute.first;
  all.compute_minor = compute.second;
  return all;
}

} // namespace
} // namespace simgpu

PYBIND11_MODULE(_C, m) {
  using namespace simgpu;
  register_autograd_fallback();
  const auto forced = register_forced_operations();
  m.def("forced_operations", [forced] { return forced; });
  namespace py = pybind11;
  py::class_<Processor>(m, "Processor").def(py::init(&processor));
  py::class_<Speeds>(m, "Speeds")
      .def(py::init<>())
      .def_readwrite("card", &Speeds::card)
      .def_readwrite("cpu", &Speeds::cpu)
      .def_readwrite("pinned_per_lane", &Speeds::pinned_per_lane)
      .def_readwrite("pageable", &Speeds::pageable)
      .def_readwrite("latency", &Speeds::latency)
      .def_readwrite("operation", &Speeds::operation)
      .def_readwrite("view", &Speeds::view)
      .def_readwrite("copy", &Speeds::copy)
      .def_readwrite("event", &Speeds::event)
      .def_readwrite("driver", &Speeds::driver);
  py::class_<shared::Model>(m, "Model").def(py::init(&model));
  m.def("set_speeds", &set_speeds);
  m.def("open_card", [](const std::string& name, const shared::Model& card) { Ledger::instance().open(name, card); });
  m.def("leave_card", [] { Ledger::instance().leave_card(); });
  m.def("uuid_of", &shared::uuid_of);
  m.def("link", [] {
    const shared::Link link = Ledger::instance().link();
    return std::make_pair(link.generation, link.width);
  });
  m.def("set_fragmentation", [](bool on) { Ledger::instance().set_fragmentation(on); });
  m.def("set_measured_host", [](bool on) { set_host_clock(on ? HostClock::Measured : HostClock::Model); });
  m.def("measured_host", [] { return host_clock() == HostClock::Measured; });
  m.def("watch_host", &watch_host);
  m.def("set_machinery", &set_machinery);
  m.def("now", &now);
  m.def("sleep", &sleep_for);
  m.def("set_dry", &set_dry);
  m.def("dry", &dry);
  m.def("set_race_error", [](py::object error) { set_race_error(error.release().ptr()); });
  m.def("set_race_detection", &switch_race_detection);
  m.def("race_detection", &detecting_races);
  m.def("blocking_lines", &blocking_lines);
  m.def("host_register", [](uintptr_t data, size_t bytes) { host_register(reinterpret_cast<void*>(data), bytes); });
  m.def("host_unregister", [](uintptr_t data) { host_unregister(reinterpret_cast<void*>(data)); });
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
