// SPDX-License-Identifier: Apache-2.0
#include "agent/acceptor.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/wire/limits.h"

namespace snapsync {
namespace {

constexpr int kBacklog = 128;
constexpr std::chrono::seconds kLogPause{10};
constexpr std::chrono::milliseconds kPauseAfterError{100};

absl::Status CannotListen(const std::string& address, const std::string& why) {
  return Error(Reason::kConfiguration, "can't listen on " + address + ": " +
                                           why +
                                           "; is the port taken, or the "
                                           "address not this host's?");
}

std::string HostOf(const sockaddr_storage& address, socklen_t length) {
  std::array<char, NI_MAXHOST> host{};
  if (::getnameinfo(reinterpret_cast<const sockaddr*>(&address), length,
                    host.data(), host.size(), nullptr, 0,
                    NI_NUMERICHOST) != 0) {
    return "?";
  }
  return host.data();
}

// Of a socket: never the same for two that are open. 0: it is closed.
uint64_t InodeOf(int fd) {
  struct stat facts {};
  return ::fstat(fd, &facts) == 0 ? facts.st_ino : 0;
}

void Set(int fd, int level, int option, int value) {
  ::setsockopt(fd, level, option, &value, sizeof value);
}

// In the network's byte order.
in_port_t& PortOf(sockaddr& address) {
  return address.sa_family == AF_INET6
             ? reinterpret_cast<sockaddr_in6&>(address).sin6_port
             : reinterpret_cast<sockaddr_in&>(address).sin_port;
}

absl::StatusOr<UniqueFd> ListenOn(const addrinfo& address) {
  UniqueFd fd(::socket(address.ai_family,
                       SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return PosixError(errno, "no socket");
  Set(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  // Connections inherit these.
  Set(fd.get(), IPPROTO_TCP, TCP_NODELAY, 1);
  Set(fd.get(), IPPROTO_TCP, TCP_USER_TIMEOUT,
      kKeepaliveTimeMs + kKeepaliveTimeoutMs);
  if (::bind(fd.get(), address.ai_addr, address.ai_addrlen) != 0 ||
      ::listen(fd.get(), kBacklog) != 0) {
    return PosixError(errno, "bind");
  }
  return fd;
}

// As many descriptors as are of use, if this process may have them. No more:
// programs that it runs inherit the limit, and some count up to it.
int RaiseDescriptorLimit() {
  constexpr rlim_t kWanted = Acceptor::kOpen + Acceptor::kOwnDescriptors;
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur < kWanted) {
    limit.rlim_cur = std::min(limit.rlim_max, kWanted);
    ::setrlimit(RLIMIT_NOFILE, &limit);
    ::getrlimit(RLIMIT_NOFILE, &limit);
  }
  return static_cast<int>(std::min<rlim_t>(limit.rlim_cur, kWanted));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Acceptor>> Acceptor::Listen(
    const std::vector<std::string>& addresses) {
  std::unique_ptr<Acceptor> acceptor(new Acceptor);
  const int limit = RaiseDescriptorLimit();
  acceptor->most_ = std::min(
      kOpen, static_cast<size_t>(std::max(limit - kOwnDescriptors, limit / 2)));
  acceptor->stop_.Reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  acceptor->reserve_.Reset(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (!acceptor->stop_.valid() || !acceptor->reserve_.valid()) {
    return PosixError(errno, "can't prepare to listen");
  }
  for (const std::string& address : addresses) {
    SNAPSYNC_RETURN_IF_ERROR(acceptor->Add(address));
  }
  return acceptor;
}

absl::Status Acceptor::Add(const std::string& address) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos) {
    return CannotListen(address, "it is no HOST:PORT");
  }
  std::string host = address.substr(0, colon);
  const std::string port = address.substr(colon + 1);
  if (host.starts_with('[') && host.ends_with(']')) {
    host = host.substr(1, host.size() - 2);
  }
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  if (const int error =
          ::getaddrinfo(host.c_str(), port.c_str(), &hints, &found);
      error != 0) {
    return CannotListen(address, ::gai_strerror(error));
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> list(
      found, &::freeaddrinfo);
  // A name may have several, of either family; this host not all of them.
  in_port_t chosen = 0;
  absl::Status failed;
  for (addrinfo* item = found; item != nullptr; item = item->ai_next) {
    if (chosen != 0) PortOf(*item->ai_addr) = chosen;
    absl::StatusOr<UniqueFd> listener = ListenOn(*item);
    if (!listener.ok()) {
      failed = listener.status();
      continue;
    }
    sockaddr_storage bound{};
    socklen_t length = sizeof bound;
    auto* const name = reinterpret_cast<sockaddr*>(&bound);
    ::getsockname(listener->get(), name, &length);
    chosen = PortOf(*name);
    listeners_.push_back(*std::move(listener));
  }
  if (chosen == 0) return CannotListen(address, std::string(MessageOf(failed)));
  addresses_.push_back(address.substr(0, colon) + ":" +
                       std::to_string(ntohs(chosen)));
  return absl::OkStatus();
}

void Acceptor::Start(Sink sink) {
  sink_ = std::move(sink);
  thread_ = std::thread([this] { Run(); });
}

void Acceptor::Stop() {
  if (!thread_.joinable()) return;
  ::eventfd_write(stop_.get(), 1);
  thread_.join();
}

void Acceptor::Run() {
  std::vector<pollfd> waiting;
  for (const UniqueFd& listener : listeners_) {
    waiting.push_back({listener.get(), POLLIN, 0});
  }
  waiting.push_back({stop_.get(), POLLIN, 0});
  while (waiting.back().revents == 0) {
    if (::poll(waiting.data(), waiting.size(), -1) < 0) continue;
    for (const pollfd& ready : waiting) {
      if (ready.revents != 0 && ready.fd != stop_.get()) AcceptFrom(ready.fd);
    }
  }
}

void Acceptor::AcceptFrom(int listener) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  const auto accept = [&] {
    length = sizeof address;
    return ::accept4(listener, reinterpret_cast<sockaddr*>(&address), &length,
                     SOCK_CLOEXEC | SOCK_NONBLOCK);
  };
  const int connection = accept();
  if (connection < 0) {
    const int error = errno;
    if (error == EMFILE || error == ENFILE) {
      // Whoever waits is told so, instead of waiting for ever.
      reserve_.Reset();
      UniqueFd refused(accept());
      refused.Reset();
      reserve_.Reset(::open("/dev/null", O_RDONLY | O_CLOEXEC));
      LogRefusal("no descriptors are left");
    }
    // ECONNABORTED and the like: the next one is as good.
    if (error != EAGAIN) std::this_thread::sleep_for(kPauseAfterError);
    return;
  }
  const std::string peer = HostOf(address, length);
  if (!HasRoomFor(peer)) {
    ::close(connection);
    LogRefusal("too many are open already; " + peer);
    return;
  }
  open_[connection] = {peer, InodeOf(connection)};
  sink_(listener, connection);
}

bool Acceptor::HasRoomFor(const std::string& peer) {
  std::erase_if(open_, [](const auto& item) {
    return InodeOf(item.first) != item.second.inode;
  });
  const auto same =
      std::count_if(open_.begin(), open_.end(),
                    [&](const auto& item) { return item.second.peer == peer; });
  return open_.size() < most_ && static_cast<size_t>(same) < kOpenPerAddress;
}

void Acceptor::LogRefusal(const std::string& what) {
  const auto now = std::chrono::steady_clock::now();
  if (logged_.time_since_epoch().count() != 0 && now - logged_ < kLogPause)
    return;
  logged_ = now;
  Log(Severity::kWarning, "a connection was refused: " + what);
}

}  // namespace snapsync
