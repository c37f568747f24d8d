#include "distributed/control_link.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <thread>

#include "files/error.h"

namespace kinefit {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kSignOfLife(400);
constexpr size_t kMostQueued = 256 << 10;
constexpr int kMostComplaints = 3;

addrinfo* LookUp(const std::string& host, int64_t port, std::string* problem) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (error != 0) *problem = gai_strerror(error);
  return error == 0 ? found : nullptr;
}

}  // namespace

ControlLink::ControlLink(int socket_file) : socket_(socket_file) {
  fcntl(socket_, F_SETFL, fcntl(socket_, F_GETFL) | O_NONBLOCK);
  const int yes = 1;
  setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
}

ControlLink::~ControlLink() { close(socket_); }

void ControlLink::Send(const ControlMessage& message) {
  if (!lost_.empty()) return;
  out_ += FormatControlMessage(message);
  if (out_.size() > kMostQueued) lost_ = "it takes no messages any more";
  said_ = Clock::now();
  Push();
}

void ControlLink::Push() {
  while (lost_.empty() && !out_.empty()) {
    const ssize_t put = send(socket_, out_.data(), out_.size(), MSG_NOSIGNAL);
    if (put > 0) {
      out_.erase(0, static_cast<size_t>(put));
    } else if (errno == EAGAIN || errno == EINTR) {
      return;
    } else {
      lost_ = std::strerror(errno);
    }
  }
}

std::vector<ControlMessage> ControlLink::Look() {
  std::vector<ControlMessage> messages;
  if (lost_.empty() && Clock::now() - said_ > kSignOfLife) Send(ControlMessage());
  Push();
  while (lost_.empty()) {
    char bytes[4096];
    const ssize_t got = recv(socket_, bytes, sizeof(bytes), 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) break;
    if (got <= 0) {
      lost_ = got == 0 ? "its launcher has ended" : std::strerror(errno);
      break;
    }
    heard_ = Clock::now();
    in_.append(bytes, static_cast<size_t>(got));
    for (size_t end = in_.find('\n'); end != std::string::npos; end = in_.find('\n')) {
      std::string problem;
      const auto message = ParseControlMessage(std::string_view(in_).substr(0, end), &problem);
      in_.erase(0, end + 1);
      if (message) {
        if (message->kind != ControlKind::kAlive) messages.push_back(*message);
      } else if (++complaints_ >= kMostComplaints) {
        lost_ = "it sends what is no message: " + problem;
      } else {
        std::fprintf(stderr, "kinefit launch: a message from another machine is ignored: %s\n",
                     problem.c_str());
      }
    }
    if (in_.size() >= kMostControlBytes) lost_ = "it sends what is no message: it is too long";
  }
  return messages;
}

void ControlLink::Flush(milliseconds time) {
  const Clock::time_point end = Clock::now() + time;
  while (lost_.empty() && !out_.empty() && Clock::now() < end) {
    Push();
    std::this_thread::sleep_for(milliseconds(5));
  }
}

double ControlLink::seconds_silent() const {
  return std::chrono::duration<double>(Clock::now() - heard_).count();
}

// On the addresses of all its interfaces: a name of this machine may stand for another one, such as
// 127.0.1.1 in /etc/hosts.
ControlListener::ControlListener(const std::string& host, int64_t port) {
  const bool six = (socket_ = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0)) >= 0;
  if (!six) socket_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in6 address_six = {};
  address_six.sin6_family = AF_INET6;
  address_six.sin6_addr = in6addr_any;
  address_six.sin6_port = htons(static_cast<uint16_t>(port));
  sockaddr_in address_four = {};
  address_four.sin_family = AF_INET;
  address_four.sin_port = htons(static_cast<uint16_t>(port));
  const int yes = 1;
  setsockopt(socket_, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
  const int bound =
      six ? bind(socket_, reinterpret_cast<sockaddr*>(&address_six), sizeof(address_six))
          : bind(socket_, reinterpret_cast<sockaddr*>(&address_four), sizeof(address_four));
  if (socket_ < 0 || bound != 0 || listen(socket_, 64) != 0) {
    const std::string why = std::strerror(errno);
    if (socket_ >= 0) close(socket_);
    throw Error("the launchers cannot meet at port " + std::to_string(port) + ": " + why,
                "--rendezvous " + host + ":" + std::to_string(port),
                "name a port that is free on node 0, the same on all nodes");
  }
  fcntl(socket_, F_SETFL, fcntl(socket_, F_GETFL) | O_NONBLOCK);
}

ControlListener::~ControlListener() { close(socket_); }

std::unique_ptr<ControlLink> ControlListener::Accept() {
  const int file = accept4(socket_, nullptr, nullptr, SOCK_CLOEXEC);
  return file < 0 ? nullptr : std::make_unique<ControlLink>(file);
}

std::unique_ptr<ControlLink> ConnectControl(const std::string& host, int64_t port,
                                            milliseconds time, std::string* problem) {
  addrinfo* found = LookUp(host, port, problem);
  std::unique_ptr<ControlLink> link;
  for (const addrinfo* at = found; at != nullptr && link == nullptr; at = at->ai_next) {
    const int file = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (file < 0) continue;
    int error = connect(file, at->ai_addr, at->ai_addrlen) == 0 ? 0 : errno;
    if (error == EINPROGRESS) {
      pollfd wait = {file, POLLOUT, 0};
      const int ready = poll(&wait, 1, static_cast<int>(time.count()));
      socklen_t size = sizeof(error);
      if (ready != 1) {
        error = ETIMEDOUT;
      } else {
        getsockopt(file, SOL_SOCKET, SO_ERROR, &error, &size);
      }
    }
    if (error == 0) {
      link = std::make_unique<ControlLink>(file);
    } else {
      *problem = std::strerror(error);
      close(file);
    }
  }
  if (found != nullptr) freeaddrinfo(found);
  return link;
}

}  // namespace kinefit
