#include "speeds.h"

#include <algorithm>
#include <cmath>

namespace simgpu {

Number kind_of(c10::ScalarType type) {
  switch (type) {
    case c10::ScalarType::Double:
    case c10::ScalarType::ComplexDouble:
      return Number::Double;
    case c10::ScalarType::Half:
    case c10::ScalarType::ComplexHalf:
      return Number::Half;
    case c10::ScalarType::BFloat16:
      return Number::Bfloat;
    case c10::ScalarType::Float:
    case c10::ScalarType::ComplexFloat:
      return Number::Single;
    default:
      return c10::isFloat8Type(type) ? Number::Eight : Number::Integer;
  }
}

Nanoseconds duration(const Processor& processor, Number kind, double flops, double bytes) {
  const double rate = processor.flops[static_cast<size_t>(kind)];
  const double seconds =
      std::max(flops > 0 ? flops / rate : 0.0, bytes > 0 ? bytes / processor.bytes : 0.0);
  return processor.launch + static_cast<Nanoseconds>(std::ceil(seconds * 1e9));
}

Nanoseconds transfer(Nanoseconds latency, int64_t bytes, int64_t rate) {
  const auto scaled = static_cast<__int128>(bytes) * 1'000'000'000 + (rate - 1);
  return latency + static_cast<Nanoseconds>(scaled / rate);
}

} // namespace simgpu
