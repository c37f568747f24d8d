#pragma once

#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "model/layers.h"

namespace kinefit {

// Which coarse class (group) each class is in, as tensors on the network's device.
class Hierarchy {
 public:
  // `groups` hold every class in exactly one group.
  Hierarchy(const std::vector<std::vector<int64_t>>& groups, int64_t classes,
            const at::Device& device);
  int64_t groups() const { return groups_; }
  // [N] classes -> [N] groups.
  at::Tensor GroupsOf(const at::Tensor& labels) const { return group_of_.index_select(0, labels); }

  // -log of the share of all consistent states in which the label is true, for independent
  // probabilities sigmoid(logit) of classes and groups; states: a group alone, or a class with its
  // group (HEX graphs, Deng et al. 2014, as PCAN has it). Mean over the batch.
  at::Tensor TreeLoss(const at::Tensor& coarse, const at::Tensor& fine,
                      const at::Tensor& labels) const;

 private:
  int64_t groups_;
  at::Tensor group_of_;  // [classes] int64
};

// PCAN's prototypes of one stream, fine or coarse: a running mean of each class's features, with
// which ambiguous samples are pulled together or apart (arXiv 2412.14719; RefineNet of FR-Head).
class Prototypes {
 public:
  // `extra`: the published code does not save the running means; ours come behind all others.
  Prototypes(TensorMaker& maker, const std::string& name, int64_t channels, int64_t width,
             int64_t classes, bool extra);
  // Makes the buffer of an `extra` one; to be called when all of the published tensors are there.
  void MakeExtra(TensorMaker& maker);

  // Of features [N, C], the cosine with every class's prototype: [N, classes].
  at::Tensor Similarity(const at::Tensor& x) const;
  // The calibration losses. `highest` [N, C]: features averaged over time, their maximum over all
  // pixels. Moves the prototypes towards samples that were recognised.
  at::Tensor CoarseLoss(const at::Tensor& highest, const at::Tensor& logits,
                        const at::Tensor& labels) const;
  // `group_right` [N] float: 1 where the coarse class was recognised. With the diversity of the
  // prototypes, which has no gradient.
  at::Tensor FineLoss(const at::Tensor& highest, const at::Tensor& logits, const at::Tensor& labels,
                      const at::Tensor& group_right) const;

 private:
  at::Tensor Embed(const at::Tensor& x) const { return Linear(x, weight_, bias_); }
  // The prototypes [width, classes] after this batch; moved for good, but with its gradient.
  at::Tensor Moved(const at::Tensor& embedded, const at::Tensor& recognised) const;

  std::string name_;
  int64_t width_, classes_;
  at::Tensor mean_;  // [width, classes]
  at::Tensor weight_, bias_;
};

}  // namespace kinefit
