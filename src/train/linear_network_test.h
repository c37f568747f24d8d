#pragma once

#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "model/loss.h"
#include "model/network.h"

namespace kinefit {

// For tests: one linear layer over the heat maps, and a buffer that training forwards change as BN
// statistics do. No coupling between the samples of a batch.
class LinearNetwork : public Network {
 public:
  LinearNetwork(int64_t inputs, int64_t classes) {
    at::manual_seed(3);
    Add("weight", at::randn({inputs, classes}) * 0.3, &tensors_.parameters);
    Add("bias", at::zeros({classes}), &tensors_.parameters);
    Add("mean", at::zeros({inputs}), &tensors_.buffers);
    for (NamedTensor& parameter : tensors_.parameters) parameter.tensor.set_requires_grad(true);
  }
  NetworkOutput Forward(const NetworkInput& input, RandomStream& /*random*/) override {
    const at::Tensor x = input.heatmap_imgs.flatten(1);
    if (training_) tensors_.buffers[0].tensor.lerp_(x.mean(0), 0.1);
    NetworkOutput output;
    const at::Tensor weight = tensors_.parameters[0].tensor;
    output.logits.emplace_back("pose", at::matmul(Cast(x), Cast(weight)).to(weight.scalar_type()) +
                                           tensors_.parameters[1].tensor);
    return output;
  }
  Loss LossOf(const NetworkOutput& output, const at::Tensor& labels) override {
    return ComputeLoss(output, labels, HeadConfig());
  }
  std::vector<std::string> LossNames() const override { return {"pose"}; }
  at::Tensor Weight() const { return tensors_.parameters[0].tensor.detach(); }
  at::Tensor Mean() const { return tensors_.buffers[0].tensor; }

 private:
  void Add(const std::string& name, const at::Tensor& tensor, std::vector<NamedTensor>* list) {
    list->push_back({name, tensor});
    tensors_.all.push_back({name, tensor});
  }
};

}  // namespace kinefit
