#pragma once

#include <string>

namespace kinefit {

// Says which layer the present thread works for while it lives, forward or backward, so that a
// memory trace can name it. Costs two assignments. `name` must outlive it.
class LayerScope {
 public:
  explicit LayerScope(const std::string& name) : outer_(current_) { current_ = &name; }
  ~LayerScope() { current_ = outer_; }
  LayerScope(const LayerScope&) = delete;
  LayerScope& operator=(const LayerScope&) = delete;

  // Null outside of any layer.
  static const std::string* Current() { return current_; }
  // Whether the present thread runs the backward pass of one of our operations.
  static bool InBackward() { return in_backward_; }
  static void SetInBackward(bool on) { in_backward_ = on; }

 private:
  static thread_local const std::string* current_;
  static thread_local bool in_backward_;
  const std::string* outer_;
};

}  // namespace kinefit
