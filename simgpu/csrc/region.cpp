#include "region.h"

#include <c10/util/SmallVector.h>

#include <algorithm>
#include <utility>

namespace simgpu {
namespace {

struct Dimension {
  int64_t size, stride; // stride in bytes
};

// The dimensions in which a tensor really moves, the fastest first.
c10::SmallVector<Dimension, 6> dimensions_of(const at::Tensor& tensor) {
  c10::SmallVector<Dimension, 6> all;
  const auto item = static_cast<int64_t>(tensor.element_size());
  for (int64_t d = 0; d < tensor.dim(); ++d) {
    if (tensor.size(d) > 1 && tensor.stride(d) != 0) {
      all.push_back({tensor.size(d), tensor.stride(d) * item});
    }
  }
  std::sort(all.begin(), all.end(), [](const Dimension& a, const Dimension& b) { return a.stride < b.stride; });
  return all;
}

} // namespace

Region region_of(const at::Tensor& tensor) {
  const auto begin = reinterpret_cast<uintptr_t>(tensor.const_data_ptr());
  if (tensor.numel() == 0 || begin == 0) {
    return {};
  }
  const auto item = static_cast<int64_t>(tensor.element_size());
  if (tensor.is_non_overlapping_and_dense()) {
    return {begin, begin + static_cast<uintptr_t>(tensor.numel() * item), nullptr};
  }
  const auto dimensions = dimensions_of(tensor);
  // What lies side by side is one piece.
  int64_t piece = item;
  size_t d = 0;
  while (d < dimensions.size() && dimensions[d].stride == piece) {
    piece *= dimensions[d++].size;
  }
  Region region{begin, begin + static_cast<uintptr_t>(piece), nullptr};
  auto strided = std::make_shared<Region::Strided>();
  strided->size = piece;
  for (size_t i = dimensions.size(); i-- > d;) {
    strided->sizes.push_back(dimensions[i].size);
    strided->strides.push_back(dimensions[i].stride);
    region.end += static_cast<uintptr_t>((dimensions[i].size - 1) * dimensions[i].stride);
  }
  if (!strided->sizes.empty()) {
    region.strided = std::move(strided);
  }
  return region;
}

} // namespace simgpu
