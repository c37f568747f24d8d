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

 private:
  static thread_local const std::string* current_;
  const std::string* outer_;
};

}  // namespace kinefit
