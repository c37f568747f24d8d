#include "ops/layer_scope.h"

namespace kinefit {

thread_local const std::string* LayerScope::current_ = nullptr;
thread_local bool LayerScope::in_backward_ = false;

}  // namespace kinefit
