#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "distributed/group.h"
#include "distributed/heartbeat.h"
#include "distributed/shared_messages.h"
#include "distributed/watch.h"

namespace kinefit {

// A Group over c10d: Gloo on the CPU for all it says itself and, without NCCL, for gradients.
class C10dGroup : public Group {
 public:
  C10dGroup(const RankEnvironment& environment, const GroupOptions& options);
  ~C10dGroup() override;

  void Sum(at::Tensor& values) override;
  void Broadcast(const std::vector<at::Tensor>& tensors, int64_t from) override;
  std::string Share(const std::string& bytes, int64_t from) override;
  std::vector<std::string> Gather(const std::string& bytes) override;
  std::unique_ptr<StepExchange> MakeStepExchange(const std::vector<at::Tensor>& parameters,
                                                 const std::vector<size_t>& order,
                                                 const ExchangeOptions& options) override;
  void Tell(int64_t step, RankPhase phase) override {
    Group::Tell(step, phase);
    watch_->Tell(step, NameOf(phase));
  }
  void Fail(const std::string& reason) override { watch_->Fail(reason); }
  void Leave() override;

  // Sum() of up to `most` numbers goes through shared memory from now on, where that is possible.
  void ShareMemory(int64_t most);

  // Sums gradients. Its calls may overlap with others.
  const ProcessGroup& gradients() const { return gradients_; }

  // Runs what communicates; if that throws, a rank is lost, and so is this process.
  template <typename Run>
  void Guarded(const Run& run) {
    const WaitingForRanks waiting;
    watch_->TellWaiting(true);
    try {
      run();
    } catch (const std::exception& error) {
      watch_->EndBecauseOfError(error.what());
    }
    watch_->TellWaiting(false);
  }

 private:
  void SumByGloo(at::Tensor& values);

  const bool may_share_memory_;
  const std::chrono::milliseconds timeout_;
  std::unique_ptr<Watch> watch_;
  ProcessGroup control_;
  ProcessGroup gradients_;
  Store store_;
  std::unique_ptr<SharedMessages> messages_;
};

}  // namespace kinefit
