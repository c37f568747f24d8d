#include "ops/gradient_node.h"

#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/variable.h>

#include <memory>
#include <utility>

#include "libtorch/versions.h"
#include "ops/batch_norm.h"
#include "ops/channels_last.h"
#include "ops/layer_scope.h"

namespace kinefit {

using torch::autograd::variable_list;

namespace {

class BackwardScope {
 public:
  BackwardScope() { LayerScope::SetInBackward(true); }
  ~BackwardScope() { LayerScope::SetInBackward(false); }
  BackwardScope(const BackwardScope&) = delete;
  BackwardScope& operator=(const BackwardScope&) = delete;
};

}  // namespace

variable_list GradientNode::apply(variable_list&& grads) {
  TORCH_CHECK(!released_, "this operation can be differentiated only once");
  const at::NoGradGuard no_grad;
  const BackwardScope scope;
  at::Tensor grad = std::move(grads[0]);
  grads.clear();
  if (!grad.defined()) return variable_list(num_outputs());
  const at::ScalarType type = c10::typeMetaToScalarType(input_metadata(0).options().dtype());
  if (grad.scalar_type() != type) grad = grad.to(type);
  // Others may still need theirs, or it stands for one number many times over (expand).
  const auto layout =
      RunsOnGpu(grad) && grad.dim() == 5 ? kChannelsLast : at::MemoryFormat::Contiguous;
  if (!grad.is_contiguous(layout)) {
    grad = grad.contiguous(layout);
  } else if (grad.use_count() > 1 || grad.storage().use_count() > 1) {
    grad = grad.clone();
  }
  Tensors result = Backward(std::move(grad));
  release_variables();
  for (size_t i = 0; i < result.size(); ++i) {
    if (!task_should_compute_output(i)) result[i] = at::Tensor();
  }
  return result;
}

void GradientNode::release_variables() {
  released_ = true;
  Release();
}

bool NeedsGradient(const Tensors& inputs) {
  if (!at::GradMode::is_enabled()) return false;
  for (const at::Tensor& input : inputs) {
    if (input.requires_grad()) return true;
  }
  return false;
}

void Attach(GradientNode* owned, const Tensors& inputs, at::Tensor& output) {
  using Owner = decltype(torch::autograd::Edge::function);
  const Owner node = OwnNode<Owner>(static_cast<torch::autograd::Node*>(owned));
  node->set_next_edges(torch::autograd::collect_next_edges(inputs));
  torch::autograd::create_gradient_edge(output, node);
}

}  // namespace kinefit
