// The bytes that a tensor's elements occupy.
#pragma once

#include "shadow.h"

#include <ATen/core/Tensor.h>

namespace simgpu {

Region region_of(const at::Tensor& tensor);

} // namespace simgpu
