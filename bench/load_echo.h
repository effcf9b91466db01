// Connections that stay open and exchange messages: each a closed loop, or all together at a fixed rate.
#pragma once

#include <cstdint>
#include <vector>

#include "load_net.h"
#include "load_protocol.h"
#include "load_rate.h"
#include "load_stats.h"

namespace edgewire::bench {

class EchoClients {
 public:
  EchoClients(const Options& options, Trial& trial);

  // Opens all connections and has each echo one message. That proves that the server has accepted it (the kernel alone
  // completes a connect), and it bounds how many wait in the server's backlog at any time.
  void openAll();
  void run();    // keeps `depth` messages in flight per connection until the trial's window has ended
  void drain();  // starts no more messages, and waits for those in flight; the stalled ones read at last
  void runAtRate();
  void drainAtRate();  // waits for a bounded time: what is unanswered then has been missed; nothing missed: drain()
  int pollFd() const { return poller_.fd(); }
  void poll(int timeoutMs);  // handles what has happened: with nothing in flight, that can only be a failure

 private:
  struct Client {
    Fd fd;
    uint64_t sent = 0;      // bytes of this connection's requests
    uint64_t received = 0;  // of its replies
    bool blocked = true;    // not connected yet, or the send buffer is full: wait for EPOLLOUT
  };
  enum class Phase { opening, running, draining };
  // In this order in the list of clients. All echo one message when they have been opened.
  enum class Role {
    active,   // what is measured
    idle,     // silent from then on
    stalled,  // sends as much as the server takes, and reads nothing before the draining
  };
  // Less than any server's backlog (net.Server's is 511), so that no SYN is dropped and sent again a second later.
  static constexpr int kMaxOpening = 64;
  static constexpr int kPollMs = 50;
  // More than all buffers on the way there and back: a server that takes so much keeps it, and has no backpressure.
  static constexpr uint64_t kStalledMostBytes = 64 * 1024 * 1024;

  Role roleOf(uint32_t index) const;
  void openNext();
  void onEvent(uint32_t index, uint32_t events);
  void connected(const Client& client, uint32_t index) const;
  void receive(uint32_t index, bool untilEmpty);
  void accountFor(uint32_t index, size_t length);
  void complete(uint32_t index, uint64_t message, uint64_t now);
  void send(uint32_t index);
  uint64_t sendLimit(const Client& client, uint32_t index) const;
  void fillStalled();
  void drainStalled();
  void startDue(uint64_t now);
  uint64_t& startOf(uint32_t index, uint64_t message) { return starts_[index * depth_ + message % depth_]; }

  const Options& options_;
  Trial& trial_;
  const Protocol protocol_;
  const uint64_t requestSize_;
  const uint64_t depth_;
  const bool atRate_;
  Phase phase_ = Phase::opening;
  Dialer dialer_;
  Poller poller_;
  Schedule schedule_;
  std::vector<Client> clients_;
  // When each message in flight of an active connection was begun: a ring of `depth` for each. At a rate it is not
  // needed: the schedule knows when they were to begin.
  std::vector<uint64_t> starts_;
  ReceiveBuffer buffer_;
  uint32_t dialed_ = 0;
  uint32_t opened_ = 0;    // have echoed their first message
  uint64_t inFlight_ = 0;  // messages, over all connections
};

}  // namespace edgewire::bench
