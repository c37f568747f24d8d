#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "distributed/control_message.h"

namespace kinefit {

// One connection between two launchers. Never blocks. What the other end sends is not trusted: a
// line that is no message is dropped and complained about, one that is too long ends the link.
class ControlLink {
 public:
  // Takes over the socket.
  explicit ControlLink(int socket_file);
  ~ControlLink();
  ControlLink(const ControlLink&) = delete;
  ControlLink& operator=(const ControlLink&) = delete;

  // Queues the message and sends what can be sent.
  void Send(const ControlMessage& message);
  // Sends and receives, and gives a sign of life now and then. Returns the messages that have come,
  // kAlive left out.
  std::vector<ControlMessage> Look();
  // Gives what is queued up to `time` to leave.
  void Flush(std::chrono::milliseconds time);

  // Why it cannot be used any more; "" while it can.
  const std::string& lost() const { return lost_; }
  double seconds_silent() const;  // since anything was heard, or since the beginning

 private:
  using Clock = std::chrono::steady_clock;
  void Push();

  int socket_ = -1;
  std::string in_;
  std::string out_;
  std::string lost_;
  int complaints_ = 0;
  Clock::time_point heard_ = Clock::now();
  Clock::time_point said_ = Clock::now();
};

// Waits for connections. Throws Error if it cannot, naming the port.
class ControlListener {
 public:
  ControlListener(const std::string& host, int64_t port);
  ~ControlListener();
  ControlListener(const ControlListener&) = delete;
  ControlListener& operator=(const ControlListener&) = delete;

  // The next connection, or null if there is none now.
  std::unique_ptr<ControlLink> Accept();

 private:
  int socket_ = -1;
};

// A connection to `host`, or null and why in `*problem`. Blocks for `time` at most (besides looking
// up the name).
std::unique_ptr<ControlLink> ConnectControl(const std::string& host, int64_t port,
                                            std::chrono::milliseconds time, std::string* problem);

}  // namespace kinefit
