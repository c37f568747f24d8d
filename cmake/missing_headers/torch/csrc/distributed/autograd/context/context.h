#pragma once

// Debian's libtorch-dev leaves out this header of LibTorch 1.13, though c10d's reducer.hpp includes
// it. These are the two names of it that reducer.hpp uses, as LibTorch declares them; a LibTorch
// that has the header never sees this one.

#include <ATen/ATen.h>

#include <functional>
#include <memory>

namespace torch {
namespace distributed {
namespace autograd {

class DistAutogradContext {
 public:
  using GradCallback = std::function<bool(at::Tensor&)>;
};

using ContextPtr = std::shared_ptr<DistAutogradContext>;

}  // namespace autograd
}  // namespace distributed
}  // namespace torch
