#include "train/ema.h"

#include <stdexcept>
#include <utility>

#include "files/error.h"

namespace kinefit {

Ema::Ema(Network& network, double momentum) : network_(network), momentum_(momentum) {
  const at::NoGradGuard no_grad;
  for (const NamedTensor& parameter : network.parameters()) {
    const at::Tensor& source = parameter.tensor;
    at::Tensor copy = source.detach().clone();
    // Swap() exchanges whole storages.
    if (source.storage_offset() != 0 || source.storage().nbytes() != copy.storage().nbytes() ||
        source.strides() != copy.strides()) {
      throw std::logic_error(parameter.name + " does not own its memory");
    }
    averaged_.push_back(std::move(copy));
  }
}

void Ema::Update() {
  const at::NoGradGuard no_grad;
  const std::vector<NamedTensor>& parameters = network_.parameters();
  for (size_t i = 0; i < averaged_.size(); ++i) {
    if (steps_ == 0) {
      averaged_[i].copy_(parameters[i].tensor);
    } else {
      averaged_[i].lerp_(parameters[i].tensor, momentum_);
    }
  }
  ++steps_;
}

void Ema::Swap() {
  const std::vector<NamedTensor>& parameters = network_.parameters();
  for (size_t i = 0; i < averaged_.size(); ++i) {
    // The memory changes hands; nothing is copied, so it cannot fail.
    c10::StorageImpl* a = averaged_[i].storage().unsafeGetStorageImpl();
    c10::StorageImpl* b = parameters[i].tensor.storage().unsafeGetStorageImpl();
    a->set_data_ptr(b->set_data_ptr(a->set_data_ptr(at::DataPtr())));
  }
}

CheckpointDict Ema::State() const {
  CheckpointDict weights;
  const std::vector<NamedTensor>& parameters = network_.parameters();
  for (size_t i = 0; i < averaged_.size(); ++i) {
    weights.emplace_back(parameters[i].name, averaged_[i]);
  }
  return {{"steps", steps_}, {"state_dict", std::move(weights)}};
}

void Ema::Load(const CheckpointValue& state, const std::string& where) {
  const std::string what = where + ": the averaged weights (EMA)";
  const CheckpointValue* weights = state.Find("state_dict");
  const CheckpointValue* steps = state.Find("steps");
  if (weights == nullptr || steps == nullptr) {
    throw Error("the averaged weights (EMA) are incomplete", where,
                "resume from another checkpoint, or with train.ema = false");
  }
  std::vector<std::pair<std::string, at::Tensor>> source;
  for (const auto& [name, value] : weights->AsDict(what)) {
    source.emplace_back(name, value.AsTensor(what + "." + name));
  }
  std::vector<std::pair<std::string, at::Tensor>> target;
  for (size_t i = 0; i < averaged_.size(); ++i) {
    target.emplace_back(network_.parameters()[i].name, averaged_[i]);
  }
  LoadInto(target, source, true, where);
  steps_ = steps->AsInt(what + ".steps");
}

}  // namespace kinefit
