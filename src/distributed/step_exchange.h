#pragma once

#include <ATen/ATen.h>

#include <array>
#include <cstdint>
#include <exception>
#include <string>
#include <vector>

namespace kinefit {

// What the ranks' parts of an optimizer step come to together.
struct StepTotals {
  static constexpr size_t kStreams = 10;  // losses at most, of a network
  double samples = 0;
  double loss = 0;  // summed over samples
  double correct = 0;
  std::array<double, kStreams> losses = {};
  bool stop = false;          // someone was asked to stop (a signal)
  int64_t micro_batches = 0;  // in: this rank's. out: unchanged
  // Out: a rank that trained most micro-batches of all; with batch norms that see all ranks, its
  // running statistics are the step's. -1: all trained as many.
  int64_t statistics_of = -1;
};

// Thrown where another rank's failure ends this rank's step. Nothing is left in flight.
class StepCalledOff : public std::exception {
 public:
  explicit StepCalledOff(std::vector<int64_t> ranks);
  const char* what() const noexcept override { return text_.c_str(); }
  const std::vector<int64_t>& ranks() const { return ranks_; }  // that failed

 private:
  std::vector<int64_t> ranks_;
  std::string text_;
};

struct ExchangeOptions {
  int64_t statistics = 0;  // most numbers that SumStatistics is called with; 0: never
  double bucket_bytes = 25 << 20;
};

// How the ranks take one optimizer step together. Gradients are added up bucket by bucket while the
// backward pass still runs (c10d::Reducer); everything else goes through one channel of messages of
// one size, in which every message also says whether its sender has failed. So whatever the others
// are doing when a rank runs out of memory (waiting for statistics in a forward or backward pass,
// or for the step's totals), the next message tells them, and all call the step off at the same
// point. A rank that has failed still brings the buckets that it owes, as zeros: nobody waits for
// ever, and what was added up is thrown away.
//
//   Begin
//     forward (SumStatistics in every batch norm), ExpectGradients before the last micro-batch's
//     backward (SumStatistics), any number of micro-batches, also none
//   AddUp       gradients and totals are now those of all ranks
//   Ready       all that can fail is done; afterwards every rank updates
//
// A rank with fewer micro-batches than others waits in AddUp, taking part in their statistics with
// nothing of its own. Where a step fails here, Fail; where it throws StepCalledOff, nothing.
class StepExchange {
 public:
  virtual ~StepExchange() = default;

  virtual void Begin() = 0;
  // The next backward pass completes the gradients: exchange them as they come. May be left out.
  virtual void ExpectGradients() = 0;
  // As SumOverRanks (ops/batch_norm.h). Throws StepCalledOff.
  virtual void SumStatistics(at::Tensor& values) = 0;
  // Gradients of the parameters are summed over ranks, and stay undefined for a parameter that got
  // none anywhere. Throws StepCalledOff.
  virtual void AddUp(StepTotals* totals) = 0;
  // `*norm` becomes rank 0's, so that all decide the same. Throws StepCalledOff.
  virtual void Ready(double* norm) = 0;
  // This rank's step failed: tells the others, and leaves nothing in flight. Returns all ranks
  // that failed in it, as StepCalledOff has them.
  virtual std::vector<int64_t> Fail() = 0;
  // After any other exception: forgets the step without a word to the others.
  virtual void Abandon() = 0;
  // Bytes of the buckets, for those who count memory.
  virtual int64_t bucket_bytes() const = 0;
};

}  // namespace kinefit
