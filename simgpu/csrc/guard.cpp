// The device guard: torch's door to the card's streams and events.
#include "card.h"
#include "engine.h"
#include "streams.h"

#include <c10/core/impl/DeviceGuardImplInterface.h>
#if __has_include(<c10/core/DeviceCapability.h>)
#include <c10/core/DeviceCapability.h>
#endif

namespace simgpu {
namespace {

EventState& event_of(void* event) {
  return *static_cast<EventState*>(event);
}

struct CardGuard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override {
    return kCard;
  }

  // There is one card, so it is always the current one.
  c10::Device exchangeDevice(c10::Device device) const override {
    check_index(device.index());
    return card();
  }

  c10::Device getDevice() const override {
    return card();
  }

  void setDevice(c10::Device device) const override {
    check_index(device.index());
  }

  void uncheckedSetDevice(c10::Device /*device*/) const noexcept override {}

  c10::DeviceIndex deviceCount() const noexcept override {
    return 1;
  }

  c10::Stream getStream(c10::Device /*device*/) const override {
    return current_stream();
  }

  c10::Stream getDefaultStream(c10::Device /*device*/) const override {
    return default_stream();
  }

  c10::Stream getStreamFromGlobalPool(c10::Device /*device*/, bool is_high_priority) const override {
    return pooled_stream(is_high_priority ? -1 : 0);
  }

  c10::Stream getNewStream(c10::Device device, int priority) const override {
    check_index(device.index());
    return pooled_stream(priority);
  }

  c10::Stream exchangeStream(c10::Stream stream) const override {
    return exchange_stream(stream);
  }

  // Not marked `override`: torch 2.9 has no such virtual.
  void* getStreamNativeHandle(const c10::Stream stream) const {
    return &state_of(stream);
  }

#if __has_include(<c10/core/DeviceCapability.h>)
  // Every type that the CPU has; torch 2.9 does not ask.
  c10::DeviceCapability getDeviceCapability(c10::Device /*device*/) const {
    return c10::DeviceCapability();
  }
#endif

  bool queryStream(const c10::Stream& stream) const override {
    return done(stream);
  }

  void synchronizeStream(const c10::Stream& stream) const override {
    synchronize(stream);
  }

  void synchronizeDevice(const c10::DeviceIndex index) const override {
    check_index(index);
    synchronize();
  }

  // An event is made when it is first recorded.
  void record(void** event, const c10::Stream& stream, const c10::DeviceIndex /*index*/, const c10::EventFlag flag)
      const override {
    if (*event == nullptr) {
      *event = new EventState{flag == c10::EventFlag::BACKEND_DEFAULT, 0, {}};
    }
    simgpu::record(event_of(*event), stream);
  }

  void block(void* event, const c10::Stream& stream) const override {
    if (event != nullptr) {
      wait(stream, event_of(event));
    }
  }

  bool queryEvent(void* event) const override {
    return event == nullptr || done(event_of(event));
  }

  void synchronizeEvent(void* event) const override {
    if (event != nullptr) {
      synchronize(event_of(event));
    }
  }

  void destroyEvent(void* event, const c10::DeviceIndex /*index*/) const noexcept override {
    delete static_cast<EventState*>(event);
  }

  double elapsedTime(void* from, void* to, const c10::DeviceIndex /*index*/) const override {
    TORCH_CHECK(from != nullptr && to != nullptr, "simgpu: both events must be recorded before calling elapsed_time");
    return elapsed_ms(event_of(from), event_of(to));
  }
};

C10_REGISTER_GUARD_IMPL(PrivateUse1, CardGuard)

} // namespace
} // namespace simgpu
