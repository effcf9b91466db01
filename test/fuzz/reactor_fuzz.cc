// A libFuzzer target over the whole reactor: the input is a program of what the world and JavaScript do, and of how the
// kernel misbehaves. Whatever the program, nothing crashes and no check fails; what js_host.h and kernel.h expect holds
// at every step; and when nothing goes wrong any more, every connection gets all its bytes, comes to its end, and
// everything has come back.
//
//   test/fuzz/run.sh 60                  builds it, replays the corpus, fuzzes for a minute
//   build/fuzz/reactor_fuzz FILE         one input again; EDGEWIRE_FUZZ_TRACE=1 prints the steps
#include "world.h"

namespace edgewire::fuzz {

// Turns until nothing is left to do, while every peer reads all that comes.
void World::drive() {
  for (int turns = 0;; turns++) {
    EXPECT(turns < kTurnsMax, "asks for turns without end");
    host_.turn(true);
    for (const auto& socket : kernel_.sockets) {
      if (!socket->gone) kernel_.peer_reads(*socket, UINT64_MAX);
    }
    if (!host_.reactor.wants_turn() && !kernel_.has_events() && !host_.has_commands()) return;
  }
}

// With nothing going wrong any more, everything that can move arrives, and every connection comes to its end.
void World::settle() {
  constexpr uint64_t kRoomBytes = 64 * 1024;
  style_ = 0;
  script_.stop();
  host_.records_per_dispatch = JsHost::kEverything;
  host_.reactor.pool().set_budget_bytes(16 * uint64_t{kSlabBytes});
  while (!host_.leases.empty()) host_.release(0);
  host_.handle = [this](Event& event) {
    if (event.type == abi::kCompletionAccepted) host_.set_interest(event.life, abi::kReadStream);
  };
  for (const int listener : listeners_) host_.push(abi::kCommandListenerAccept, static_cast<uint32_t>(listener), 1);
  for (const auto& socket : kernel_.sockets) {
    kernel_.set_room(*socket, std::max(socket->room, kRoomBytes));
    kernel_.peer_answers(*socket);
  }
  for (const auto& life : host_.lives) {
    if (life->closed == 0) host_.set_interest(*life, abi::kReadStream);
  }
  drive();
  // Listeners that wait after an error, and events that came while the pool was empty.
  kernel_.now_ns += 2'000'000'000;
  drive();
  expect_all_moved();
  expect_deadlines();
  close_everything();
}

void World::expect_all_moved() {
  for (const auto& life : host_.lives) {
    if (life->closed != 0 || life->closing) continue;
    const Socket& socket = *life->socket;
    EXPECT(life->connected, "a dial without an end");
    EXPECT(!socket.reset, "a reset that was not noticed");
    EXPECT(life->received == socket.peer_sent, "bytes were left in the kernel");
    EXPECT(life->ended == socket.peer_fin, "an end that was not noticed");
    EXPECT(socket.unpredictable || socket.sent == socket.output.written(), "bytes were left unsent");
    const int32_t flags = host_.reactor.connections().interest(life->index)[abi::kInterestFlags];
    EXPECT((flags & abi::kFlagWantFlushed) == 0 || life->finished_writing, "not told that all is sent");
  }
  for (const auto& socket : kernel_.sockets) {
    EXPECT(socket->fd >= 0 || socket->gone || listeners_.empty(), "a peer was not accepted");
  }
}

// The reactor says itself when it must be called next.
void World::expect_deadlines() {
  constexpr double kAheadMs = 300;
  std::vector<std::pair<Life*, int>> waiting;
  for (const auto& life : host_.lives) {
    if (life->closed != 0 || life->closing) continue;
    host_.set_deadline(*life, abi::kRowReadDeadline, host_.now_ms() + kAheadMs);
    waiting.emplace_back(life.get(), life->timeouts[0]);
  }
  const double end_ms = host_.now_ms() + kAheadMs;
  drive();
  for (int steps = 0; host_.now_ms() < end_ms && !waiting.empty(); steps++) {
    const double next_ms = host_.reactor.next_turn_ms();
    EXPECT(steps < kTurnsMax && next_ms < end_ms + 2, "a deadline that nobody waits for");
    kernel_.now_ns = std::max(kernel_.now_ns, static_cast<uint64_t>(std::ceil(next_ms)) * 1'000'000);
    drive();
  }
  for (const auto& [life, before] : waiting) {
    EXPECT(life->closed != 0 || life->timeouts[0] == before + 1, "a deadline passed in silence");
  }
}

void World::close_everything() {
  constexpr int32_t kLingerMs = 1'000;
  host_.handle = [this](Event& event) {
    if (event.type == abi::kCompletionAccepted) host_.close(event.life, kLingerMs);
  };
  for (const auto& life : host_.lives) {
    if (life->closed == 0) host_.close(*life, kLingerMs);
  }
  // Some peers answer the FIN, the others let the reactor wait.
  for (int rounds = 0; host_.living_count() > 0; rounds++) {
    EXPECT(rounds < 10, "a connection does not end");
    drive();
    for (const auto& socket : kernel_.sockets) {
      if (socket->fin_sent && socket->id % 2 == 0 && socket->fd >= 0) kernel_.peer_finishes(*socket);
    }
    drive();
    kernel_.now_ns += 600'000'000;
  }
  for (const int listener : listeners_) host_.push(abi::kCommandListenerClose, static_cast<uint32_t>(listener));
  host_.turn(true);
  for (const auto& life : host_.lives) EXPECT(life->closed == 1, "not closed exactly once");
  EXPECT(host_.reactor.connections().in_use() == 0, "an index is left");
  EXPECT(host_.reactor.pool().in_use_bytes() == 0, "a chunk is left");
  EXPECT(host_.pins.empty(), "a pin is left");
}

}  // namespace edgewire::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  edgewire::fuzz::World(data, bytes).run();
  return 0;
}
