// How busy the card is, and what readers show beside it. The load is measured in the processes' virtual time.
// Temperature and power are no measurement: straight lines over the load, so that they move as a reader expects.
#include "face.h"
#include "meter.h"

namespace simgpu::nvml {
namespace {

constexpr unsigned kIdleDegrees = 35, kBusyDegrees = 80;
constexpr unsigned kIdlePower = 10, kBusyPower = 95; // per cent of the limit
constexpr unsigned kFastest = 0, kIdleState = 8; // performance states

unsigned between(unsigned low, unsigned high, unsigned percent) {
  return low + (high - low) * percent / 100;
}

// Never destroyed, as little as what they measure.
Meter& meter_of_load() {
  static auto* meter = new Meter();
  return *meter;
}

Meter& meter_of_heat() {
  static auto* meter = new Meter();
  return *meter;
}

Meter& meter_of_power() {
  static auto* meter = new Meter();
  return *meter;
}

Meter& meter_of_state() {
  static auto* meter = new Meter();
  return *meter;
}

unsigned degrees(const shared::Snapshot& now) {
  return between(kIdleDegrees, kBusyDegrees, meter_of_heat().ask(now).compute);
}

unsigned milliwatts(const shared::Snapshot& now) {
  const uint64_t percent = between(kIdlePower, kBusyPower, meter_of_power().ask(now).compute);
  return static_cast<unsigned>(now.model.power_limit_mw * percent / 100);
}

// By NVML's numbers: where the card shuts down, slows down, where its memory does, the highest it works at.
Return threshold(unsigned type, unsigned& to) {
  constexpr unsigned limits[] = {98, 95, 95, 93};
  if (type >= sizeof limits / sizeof *limits) {
    return kNotSupported;
  }
  to = limits[type];
  return kSuccess;
}

} // namespace
} // namespace simgpu::nvml

using namespace simgpu::nvml;
using simgpu::shared::Snapshot;

// "memory" is the part of the time in which copies ran.
NVML_CALL nvmlDeviceGetUtilizationRates(Device device, Utilization* to) {
  return give(device, to, [](const Snapshot& now) {
    const Rates rates = meter_of_load().ask(now);
    return Utilization{rates.compute, rates.copy};
  });
}

NVML_CALL nvmlDeviceGetTemperature(Device device, int sensor, unsigned* to) {
  return sensor == 0 ? give(device, to, degrees)
                     : of_card(device, [](const Snapshot&) { return kInvalidArgument; });
}

NVML_CALL nvmlDeviceGetTemperatureV(Device device, Temperature* to) {
  return of_card(device, [&](const Snapshot& now) {
    if (to == nullptr) {
      return kInvalidArgument;
    }
    if (to->version != version<Temperature>(1)) {
      return kVersionMismatch;
    }
    to->degrees = static_cast<int>(degrees(now));
    return to->sensor == 0 ? kSuccess : kInvalidArgument;
  });
}

NVML_CALL nvmlDeviceGetTemperatureThreshold(Device device, unsigned type, unsigned* to) {
  return of_card(device, [&](const Snapshot&) { return to == nullptr ? kInvalidArgument : threshold(type, *to); });
}

NVML_CALL nvmlDeviceGetPowerUsage(Device device, unsigned* to) {
  return give(device, to, milliwatts);
}

NVML_CALL nvmlDeviceGetPowerManagementLimit(Device device, unsigned* to) {
  return give(device, to, [](const Snapshot& now) { return now.model.power_limit_mw; });
}

NVML_CALL nvmlDeviceGetEnforcedPowerLimit(Device device, unsigned* to) {
  return nvmlDeviceGetPowerManagementLimit(device, to);
}

NVML_CALL nvmlDeviceGetPowerManagementDefaultLimit(Device device, unsigned* to) {
  return nvmlDeviceGetPowerManagementLimit(device, to);
}

NVML_CALL nvmlDeviceGetPerformanceState(Device device, unsigned* to) {
  return give(device, to, [](const Snapshot& now) {
    const Rates rates = meter_of_state().ask(now);
    return rates.compute == 0 && rates.copy == 0 ? kIdleState : kFastest;
  });
}

NVML_CALL nvmlDeviceGetPowerState(Device device, unsigned* to) {
  return nvmlDeviceGetPerformanceState(device, to);
}
