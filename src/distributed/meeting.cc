#include "distributed/meeting.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <thread>
#include <utility>
#include <vector>

#include "distributed/control_link.h"
#include "files/error.h"

namespace kinefit {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kPoll(30);
constexpr milliseconds kConnect(2000);
constexpr milliseconds kFarewell(2000);
constexpr double kIntroduction = 10;  // seconds in which a connection must say who it is
constexpr size_t kMostStrangers = 64;

double SecondsSince(Clock::time_point time) {
  return std::chrono::duration<double>(Clock::now() - time).count();
}

std::string NodeName(int64_t node, const std::string& host) {
  return "node " + std::to_string(node) + (host.empty() ? "" : " (" + host + ")");
}

RankFailure LinkLost(const std::string& who, const std::string& why) {
  RankFailure failure;
  failure.host = who;
  failure.why = "cannot be reached any more: " + why;
  return failure;
}

// A launcher that is busy ending its ranks says nothing for a while.
double SilenceAllowed(const LaunchOptions& options) { return options.timeout + options.grace; }

std::string Silence(double seconds) {
  return "nothing was heard of it for " + std::to_string(static_cast<int64_t>(seconds + 0.5)) +
         " s (its machine or the link is down)";
}

ControlMessage FailedMessage(int64_t start, const RankFailure& failure) {
  ControlMessage message;
  message.kind = ControlKind::kFailed;
  message.start = start;
  message.failure = failure;
  return message;
}

ControlMessage SignalMessage(int number) {
  ControlMessage message;
  message.kind = ControlKind::kSignal;
  message.exit_code = number;
  return message;
}

class Leader : public Meeting {
 public:
  Leader(const LaunchOptions& options, const std::string& host)
      : options_(options),
        host_(host),
        listener_(options.rendezvous_host, options.rendezvous_port),
        nodes_(static_cast<size_t>(options.nodes)) {}

  std::optional<RoundPlan> Begin(int64_t ranks, const std::function<bool()>& interrupted) override;
  News Look() override;
  void Tell(const RankFailure& failure) override { SendAll(FailedMessage(start_, failure)); }
  void TellSignal(int number) override { SendAll(SignalMessage(number)); }
  bool AllEnded(int /*exit_code*/) override {
    return std::all_of(nodes_.begin() + 1, nodes_.end(),
                       [](const Node& node) { return !node.takes_part || node.ended; });
  }
  void TellOver(int exit_code, const std::string& text) override;
  const MeetingEnd& End() const override { return end_; }

 private:
  struct Node {
    std::unique_ptr<ControlLink> link;
    int64_t ranks = 0;
    std::string host;
    bool joined = false;      // waits for a start
    bool takes_part = false;  // in the start at hand
    bool ended = false;
  };
  struct Stranger {
    std::unique_ptr<ControlLink> link;
    Clock::time_point came;
  };

  void LookAtStrangers(News* news);
  void Admit(std::unique_ptr<ControlLink> link, const ControlMessage& join, News* news);
  void Hear(size_t number, const ControlMessage& message, News* news);
  void SendAll(const ControlMessage& message) {
    for (Node& node : nodes_) {
      if (node.link != nullptr) node.link->Send(message);
    }
  }
  std::string Missing() const;
  RoundPlan Announce(int64_t ranks);

  const LaunchOptions& options_;
  const std::string host_;
  ControlListener listener_;
  std::vector<Node> nodes_;  // [0] unused: this one
  std::vector<Stranger> strangers_;
  int64_t next_ = 0;   // number of the next start
  int64_t start_ = 0;  // of the one at hand
  int64_t wanted_world_ = 0;
  MeetingEnd end_;
};

void Leader::Admit(std::unique_ptr<ControlLink> link, const ControlMessage& join, News* news) {
  ControlMessage refused;
  refused.kind = ControlKind::kRefused;
  if (join.nodes != options_.nodes || join.node >= options_.nodes) {
    refused.text = "node 0 was started with --nnodes " + std::to_string(options_.nodes) +
                   ", this one as number " + std::to_string(join.node) + " of " +
                   std::to_string(join.nodes);
  }
  Node& node = nodes_[static_cast<size_t>(refused.text.empty() ? join.node : 0)];
  if (refused.text.empty() && node.link != nullptr && node.link->lost().empty() &&
      node.host != join.host) {
    refused.text = NodeName(join.node, node.host) + " is there already";
  }
  if (!refused.text.empty()) {
    link->Send(refused);
    link->Flush(milliseconds(200));
    SayFromLauncher("refused a launcher on " + join.host + ": " + refused.text);
    return;
  }
  if (node.takes_part) {
    news->failure = LinkLost(NodeName(join.node, join.host), "it has left and come again");
  }
  node.link = std::move(link);
  node.host = join.host;
  node.ranks = join.ranks;
  node.joined = true;
}

void Leader::LookAtStrangers(News* news) {
  while (strangers_.size() < kMostStrangers) {
    auto link = listener_.Accept();
    if (link == nullptr) break;
    strangers_.push_back({std::move(link), Clock::now()});
  }
  for (size_t i = strangers_.size(); i-- > 0;) {
    Stranger& stranger = strangers_[i];
    const auto messages = stranger.link->Look();
    const bool joins = !messages.empty() && messages[0].kind == ControlKind::kJoin;
    if (joins) Admit(std::move(stranger.link), messages[0], news);
    if (joins || !messages.empty() || !stranger.link->lost().empty() ||
        SecondsSince(stranger.came) > kIntroduction) {
      strangers_.erase(strangers_.begin() + static_cast<std::ptrdiff_t>(i));
    }
  }
}

void Leader::Hear(size_t number, const ControlMessage& message, News* news) {
  Node& node = nodes_[number];
  const bool current = message.start == start_ && node.takes_part;
  if (message.kind == ControlKind::kFailed && current) {
    if (!news->failure || news->failure->peer_lost) news->failure = message.failure;
  } else if (message.kind == ControlKind::kEnded && current) {
    node.ended = true;
  } else if (message.kind == ControlKind::kSignal) {
    news->signal = message.exit_code;
  } else if (message.kind == ControlKind::kJoin) {
    node.ranks = message.ranks;
    node.joined = true;
  }
}

News Leader::Look() {
  News news;
  LookAtStrangers(&news);
  for (size_t i = 1; i < nodes_.size(); ++i) {
    Node& node = nodes_[i];
    if (node.link == nullptr) continue;
    for (const ControlMessage& message : node.link->Look()) Hear(i, message, &news);
    std::string lost = node.link->lost();
    const double silent = node.link->seconds_silent();
    if (lost.empty() && silent > SilenceAllowed(options_)) lost = Silence(silent);
    if (lost.empty()) continue;
    if (node.takes_part && !node.ended) {
      news.failure = LinkLost(NodeName(static_cast<int64_t>(i), node.host), lost);
    }
    node.link.reset();
    node.joined = false;
  }
  return news;
}

std::string Leader::Missing() const {
  std::string missing;
  for (size_t i = 1; i < nodes_.size(); ++i) {
    if (nodes_[i].joined) continue;
    missing += (missing.empty() ? "" : ", ") + NodeName(static_cast<int64_t>(i), nodes_[i].host);
  }
  return missing;
}

std::optional<RoundPlan> Leader::Begin(int64_t ranks, const std::function<bool()>& interrupted) {
  for (Node& node : nodes_) node.takes_part = false;
  const Clock::time_point begin = Clock::now();
  bool said = false;
  for (;;) {
    Look();
    if (interrupted()) return std::nullopt;
    const std::string missing = Missing();
    if (missing.empty()) break;
    if (!said && SecondsSince(begin) > 2) {
      SayFromLauncher("waiting for " + missing + " at " + options_.rendezvous_host + ":" +
                      std::to_string(options_.rendezvous_port));
      said = true;
    }
    if (SecondsSince(begin) > options_.rendezvous_timeout) {
      if (options_.shrink && next_ > 0) {
        SayFromLauncher("going on without " + missing);
        break;
      }
      end_ = {1, missing + " did not come within --rendezvous-timeout"};
      return std::nullopt;
    }
    std::this_thread::sleep_for(kPoll);
  }
  return Announce(ranks);
}

RoundPlan Leader::Announce(int64_t ranks) {
  RoundPlan plan;
  plan.start = start_ = next_++;
  plan.world = ranks;
  for (const Node& node : nodes_) plan.world += node.joined ? node.ranks : 0;
  if (wanted_world_ == 0) wanted_world_ = plan.world;
  plan.wanted_world = wanted_world_;
  plan.world = UsableWorld(options_, wanted_world_, plan.world);
  plan.ranks = std::min(ranks, plan.world);
  plan.port = FreePort(options_.port);
  ControlMessage message;
  message.kind = ControlKind::kRound;
  message.start = plan.start;
  message.world = plan.world;
  message.wanted_world = plan.wanted_world;
  message.port = plan.port;
  int64_t next_rank = plan.ranks;
  for (Node& node : nodes_) {
    if (!node.joined) continue;
    message.first_rank = next_rank;
    message.ranks = std::min(node.ranks, plan.world - next_rank);
    next_rank += message.ranks;
    node.joined = false;
    node.ended = false;
    node.takes_part = true;
    node.link->Send(message);
  }
  return plan;
}

void Leader::TellOver(int exit_code, const std::string& text) {
  Look();
  ControlMessage message;
  message.kind = ControlKind::kOver;
  message.exit_code = exit_code;
  message.text = text;
  SendAll(message);
  for (Node& node : nodes_) {
    if (node.link != nullptr) node.link->Flush(kFarewell);
  }
}

class Follower : public Meeting {
 public:
  Follower(const LaunchOptions& options, const std::string& host)
      : options_(options), host_(host) {}

  std::optional<RoundPlan> Begin(int64_t ranks, const std::function<bool()>& interrupted) override;
  News Look() override;
  void Tell(const RankFailure& failure) override { Send(FailedMessage(start_, failure)); }
  void TellSignal(int number) override { Send(SignalMessage(number)); }
  bool AllEnded(int exit_code) override {
    if (!told_end_) {
      ControlMessage message;
      message.kind = ControlKind::kEnded;
      message.start = start_;
      message.exit_code = exit_code;
      Send(message);
    }
    told_end_ = true;
    return false;  // node 0 says when
  }
  void TellOver(int /*exit_code*/, const std::string& /*text*/) override {
    if (link_ != nullptr) link_->Flush(kFarewell);
  }
  const MeetingEnd& End() const override { return end_; }

 private:
  void Send(const ControlMessage& message) {
    if (link_ != nullptr) link_->Send(message);
  }
  void Join(int64_t ranks) {
    ControlMessage join;
    join.kind = ControlKind::kJoin;
    join.nodes = options_.nodes;
    join.node = options_.node;
    join.ranks = ranks;
    join.host = host_;
    link_->Send(join);
  }
  std::string Lost() const {
    if (link_ == nullptr) return "there is no connection";
    if (!link_->lost().empty()) return link_->lost();
    const double silent = link_->seconds_silent();
    return silent > SilenceAllowed(options_) ? Silence(silent) : "";
  }
  void Over(const ControlMessage& message) {
    end_.exit_code = message.kind == ControlKind::kOver ? message.exit_code : 2;
    end_.text = message.text;
    over_ = true;
  }

  const LaunchOptions& options_;
  const std::string host_;
  std::unique_ptr<ControlLink> link_;
  int64_t start_ = -1;
  bool told_end_ = false;
  bool over_ = false;
  MeetingEnd end_;
};

std::optional<RoundPlan> Follower::Begin(int64_t ranks, const std::function<bool()>& interrupted) {
  told_end_ = false;
  Clock::time_point apart = Clock::now();  // since when there is no connection
  std::string problem;
  bool said = false;
  if (link_ != nullptr && Lost().empty()) Join(ranks);
  while (!interrupted() && !over_) {
    if (!Lost().empty()) {
      if (link_ != nullptr) apart = Clock::now();
      link_ =
          ConnectControl(options_.rendezvous_host, options_.rendezvous_port, kConnect, &problem);
      if (link_ != nullptr) Join(ranks);
    }
    if (link_ == nullptr) {
      const std::string where =
          options_.rendezvous_host + ":" + std::to_string(options_.rendezvous_port);
      if (!said && SecondsSince(apart) > 2) {
        SayFromLauncher("waiting for node 0 at " + where + ": " + problem);
        said = true;
      }
      if (SecondsSince(apart) > options_.rendezvous_timeout) {
        end_ = {1, "node 0 cannot be reached at " + where + ": " + problem};
        return std::nullopt;
      }
      std::this_thread::sleep_for(milliseconds(300));
      continue;
    }
    for (const ControlMessage& message : link_->Look()) {
      if (message.kind == ControlKind::kOver || message.kind == ControlKind::kRefused) {
        Over(message);
      }
      if (message.kind != ControlKind::kRound) continue;
      start_ = message.start;
      return RoundPlan{message.start,      message.world, message.wanted_world,
                       message.first_rank, message.ranks, message.port};
    }
    std::this_thread::sleep_for(kPoll);
  }
  return std::nullopt;
}

News Follower::Look() {
  News news;
  const auto messages = link_ == nullptr ? std::vector<ControlMessage>() : link_->Look();
  for (const ControlMessage& message : messages) {
    if (message.kind == ControlKind::kFailed && message.start == start_) {
      news.failure = message.failure;
      news.verdict = true;
    } else if (message.kind == ControlKind::kSignal) {
      news.signal = message.exit_code;
    } else if (message.kind == ControlKind::kOver) {
      Over(message);
    }
  }
  news.over = over_;
  const std::string lost = Lost();
  if (lost.empty() || over_ || news.failure) return news;
  news.failure = LinkLost(NodeName(0, options_.rendezvous_host), lost);
  news.verdict = true;  // there is nobody to wait for
  link_.reset();
  return news;
}

}  // namespace

std::unique_ptr<Meeting> MakeMeeting(const LaunchOptions& options, const std::string& host) {
  if (options.node == 0) return std::make_unique<Leader>(options, host);
  return std::make_unique<Follower>(options, host);
}

int64_t UsableWorld(const LaunchOptions& options, int64_t wanted, int64_t world) {
  while (world > 1 && options.arguments_for_world && !options.arguments_for_world(wanted, world)) {
    --world;
  }
  return world;
}

void SayFromLauncher(const std::string& text) {
  const std::string line = "kinefit launch: " + text + "\n";
  (void)!write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace kinefit
