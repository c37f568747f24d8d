#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "distributed/process_group.h"

namespace kinefit {

// Indices of the parameters by bucket, in the given order, a bucket being full at `bucket_bytes`;
// of one type each. The first is smaller, so that sending begins early.
std::vector<std::vector<size_t>> AssignBuckets(const std::vector<at::Tensor>& parameters,
                                               const std::vector<size_t>& order,
                                               double bucket_bytes);

// The parameters' gradients in buckets (c10d::Reducer) that are summed over ranks one after the
// other, each as soon as the backward pass has filled it. The gradients then are views of the
// buckets, so they take no memory twice. Unlike in the Reducer alone, a rank may bring its buckets
// without a backward pass of its own, and a backward pass may fail half-way.
class GradientBuckets {
 public:
  // `order`: indices of `parameters` in the order in which their gradients come. `group` null: the
  // buckets are there but go nowhere, for the meta device.
  GradientBuckets(const std::vector<at::Tensor>& parameters, const std::vector<size_t>& order,
                  double bucket_bytes, ProcessGroup group);
  ~GradientBuckets();
  GradientBuckets(const GradientBuckets&) = delete;
  GradientBuckets& operator=(const GradientBuckets&) = delete;

  // A step begins: nothing is owed.
  void Begin();
  // The buckets are to be filled and sent by the backward pass that comes.
  void Expect();
  // Sends the buckets that the backward pass did not: the gradients as they are, zeros for those
  // that are undefined, or zeros for all where the step has failed. Then every rank has sent every
  // bucket once.
  void SendRest(bool zeros);
  // Waits for all that was sent. Throws what went wrong with it. Afterwards the gradients are those
  // of all ranks.
  void Await();
  // Waits, whatever came of it, and forgets the step.
  void Abandon();

  // Whether parameter `index` had a gradient of this rank's own when its bucket was sent.
  bool used(size_t index) const { return used_[index] != 0; }
  int64_t bytes() const;

 private:
  class Buckets;
  std::vector<char> used_;
  bool settled_ = true;  // nothing is owed to the others in this step
  std::unique_ptr<Buckets> buckets_;
};

}  // namespace kinefit
