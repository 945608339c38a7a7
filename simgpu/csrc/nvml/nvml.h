// As much of NVML's C interface as the simulated card speaks: codes, structures and their versions. The layouts are
// NVML's; the names inside are ours.
#pragma once

#include <cstdint>

#define NVML_CALL extern "C" __attribute__((visibility("default"))) simgpu::nvml::Return

namespace simgpu::nvml {

enum Return : int {
  kSuccess = 0,
  kUninitialized = 1,
  kInvalidArgument = 2,
  kNotSupported = 3,
  kNoPermission = 4,
  kNotFound = 6,
  kInsufficientSize = 7,
  kTimeout = 10,
  kFunctionNotFound = 13,
  kGpuIsLost = 15,
  kVersionMismatch = 25,
  kUnknown = 999,
};

// Handles are pointers that only we look behind.
struct DeviceHandle {};
using Device = DeviceHandle*;
struct EventSetHandle {};
using EventSet = EventSetHandle*;

constexpr unsigned kNoInstance = 0xffffffff; // of a card that is not split

// The version word of a structure: its number and its size.
template <typename Structure>
constexpr unsigned version(unsigned number) {
  return number << 24 | static_cast<unsigned>(sizeof(Structure));
}

struct Memory {
  unsigned long long total, free, used;
};

struct Memory2 {
  unsigned version;
  unsigned long long total, reserved, free, used;
};

struct Bar1Memory {
  unsigned long long total, free, used;
};

struct ProcessInfo1 {
  unsigned pid;
  unsigned long long used;
};

struct ProcessInfo2 { // of the functions' versions 2 and 3
  unsigned pid;
  unsigned long long used;
  unsigned gpu_instance, compute_instance;
};

struct PciInfo1 {
  char bus_id[16];
  unsigned domain, bus, device, device_id;
};

struct PciInfo2 { // what version 2 of the function fills of version 3's
  PciInfo1 first;
  unsigned subsystem_id;
  unsigned reserved[4];
};

struct PciInfo3 {
  char legacy_bus_id[16];
  unsigned domain, bus, device, device_id, subsystem_id;
  char bus_id[32];
};

struct Utilization {
  unsigned gpu, memory; // per cent
};

struct Temperature {
  unsigned version;
  int sensor;
  int degrees;
};

struct EventData {
  Device device;
  unsigned long long type, data;
  unsigned gpu_instance, compute_instance;
};

// As NVML has it on 64-bit machines, and so as go-nvml and nvidia-ml-py read it.
static_assert(sizeof(Memory2) == 40 && sizeof(ProcessInfo1) == 16 && sizeof(ProcessInfo2) == 24);
static_assert(sizeof(PciInfo3) == 68 && sizeof(EventData) == 32 && sizeof(Temperature) == 12);

} // namespace simgpu::nvml
