// Starting and stopping, and what NVML says of the machine.
#include "face.h"

#include <unistd.h>

#include <cstring>
#include <fstream>

namespace simgpu::nvml {
namespace {

// Readers take the numbers before the dots and show the rest.
const char* const kDriver = "0.0.0-simulated";
const char* const kLibrary = "13.0.0-simulated";

const char* text_of(int code) {
  switch (code) {
    case kSuccess:
      return "Success";
    case kUninitialized:
      return "Uninitialized";
    case kInvalidArgument:
      return "Invalid Argument";
    case kNotSupported:
      return "Not Supported";
    case kNoPermission:
      return "Insufficient Permissions";
    case kNotFound:
      return "Not Found";
    case kInsufficientSize:
      return "Insufficient Size";
    case kTimeout:
      return "Timeout";
    case kFunctionNotFound:
      return "Function Not Found";
    case kGpuIsLost:
      return "GPU is lost";
    case kVersionMismatch:
      return "Argument version mismatch";
    case kUnknown:
      return "Unknown Error";
  }
  return "Another error, which the simulated NVML never gives";
}

// The command, or the name where that is hidden. Empty if the process is gone.
std::string process_name(unsigned pid) {
  for (const char* file : {"/cmdline", "/comm"}) {
    std::string name;
    std::ifstream in("/proc/" + std::to_string(pid) + file);
    std::getline(in, name, '\0');
    if (!name.empty()) {
      return name.substr(0, name.find('\n'));
    }
  }
  return "";
}

} // namespace
} // namespace simgpu::nvml

using namespace simgpu::nvml;

NVML_CALL nvmlInit_v2() {
  return start();
}

NVML_CALL nvmlInit() {
  return start();
}

NVML_CALL nvmlInitWithFlags(unsigned /*flags*/) {
  return start();
}

NVML_CALL nvmlShutdown() {
  return stop();
}

extern "C" __attribute__((visibility("default"))) const char* nvmlErrorString(int code) {
  return text_of(code);
}

NVML_CALL nvmlSystemGetDriverVersion(char* version, unsigned length) {
  return answer([&] { return give_text(version, length, kDriver); });
}

NVML_CALL nvmlSystemGetNVMLVersion(char* version, unsigned length) {
  return answer([&] { return give_text(version, length, kLibrary); });
}

// 0: there is no CUDA here.
NVML_CALL nvmlSystemGetCudaDriverVersion(int* version) {
  return answer([&] { return version == nullptr ? kInvalidArgument : (*version = 0, kSuccess); });
}

NVML_CALL nvmlSystemGetCudaDriverVersion_v2(int* version) {
  return nvmlSystemGetCudaDriverVersion(version);
}

// Cut to fit, as NVML does.
NVML_CALL nvmlSystemGetProcessName(unsigned pid, char* name, unsigned length) {
  return answer([&] {
    if (name == nullptr || length == 0) {
      return kInvalidArgument;
    }
    const std::string found = process_name(pid);
    return found.empty() ? kNotFound : give_text(name, length, found.substr(0, length - 1));
  });
}

NVML_CALL nvmlUnitGetCount(unsigned* count) {
  return answer([&] { return count == nullptr ? kInvalidArgument : (*count = 0, kSuccess); });
}
