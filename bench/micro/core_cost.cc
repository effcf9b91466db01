// Drives the native core through one load, so that valgrind can count its instructions (instructions.mjs does):
//
//   edgewire-core-cost LOAD [BATCHES]      prints the messages of the measured part and its system calls, as JSON
//   edgewire-core-cost                     prints the names of the loads, one a line
//
// Counted is what runs inside steady_state(), but for the functions of this namespace: the network (memory_kernel.h),
// the stand-in for JavaScript (core_host.h) and the loads themselves. What is left is native/core, and what it calls.
#include <charconv>
#include <cstdio>
#include <cstring>
#include <string_view>
#include <vector>

#include "core_host.h"
#include "memory_kernel.h"

namespace edgewire::bench {
namespace {

#ifdef __clang__
constexpr const char* kCompiler = __VERSION__;
#else
constexpr const char* kCompiler = "GCC " __VERSION__;
#endif

constexpr int kWarmUpBatches = 64;  // tables, lists and the pool have grown to their size by then
constexpr int kBatches = 256;
constexpr uint64_t kTurnNs = 100'000;  // the clock goes on by this much before each turn
constexpr double kDeadlineMs = 30'000;
constexpr int32_t kReadBufferBytes = 16 * 1024;
constexpr uint32_t kCopiedBelowBytes = 4096;  // lib/conn_output.ts: smaller answers go by way of the arena

struct Load {
  const char* name;
  uint32_t connections;  // open all the time; 0: they come and go
  uint32_t message_bytes;
  uint32_t depth;       // messages that arrive together on a connection
  uint32_t counted_as;  // messages in a batch
  void (*batch)(class Server&);
};

// The server, its peers, and how they answer each other.
class Server final : public Service {
 public:
  explicit Server(const Load& load) : load_(load), host_(*this) {
    SocketAddress address;
    address_from_ip("127.0.0.1", 80, &address);
    host_.reactor.listen(address, ListenOptions{});
    for (uint32_t i = 0; i < load.connections; i++) kernel.connect();
    while (conns.size() < load.connections) turn();
  }

  void turn() {
    kernel.advance_clock(kTurnNs);
    host_.reactor.turn(Look::kAlways);
  }
  int fd(uint32_t conn) { return host_.reactor.connections().at(conn).fd; }
  void peers_send() {
    for (uint32_t conn : conns) kernel.send_to(fd(conn), uint64_t{load_.message_bytes} * load_.depth);
  }

  void accepted(uint32_t conn) override {
    conns.push_back(conn);
    host_.ask_for(conn, task_style ? kReadBufferBytes : abi::kReadStream);
  }
  void data(uint32_t conn, uint32_t address, uint32_t bytes) override {
    if (deadlines) host_.set_read_deadline(conn, kernel.now_ms() + kDeadlineMs);
    if (task_style) host_.ask_for(conn, kReadBufferBytes);
    if (leases) {
      host_.push(abi::kCommandRetain, address >> kChunkBytesLog2);
      retained.push_back(address >> kChunkBytesLog2);
    }
    if (published) {
      for (size_t i = 1; i < conns.size(); i++) host_.write_arena(conns[i], bytes);
    } else if (bytes < kCopiedBelowBytes) {
      host_.write_arena(conn, bytes);
    } else {
      host_.write_lent(conn, address, bytes);
    }
  }
  void ended(uint32_t conn) override { host_.push(abi::kCommandClose, conn, 10'000); }

  void release_leases() {
    for (ChunkId chunk : retained) host_.push(abi::kCommandRelease, chunk);
    retained.clear();
  }
  uint64_t closed() const { return host_.closed; }

  MemoryKernel kernel;
  std::vector<uint32_t> conns;  // open, oldest first
  std::vector<ChunkId> retained;
  bool deadlines = false;
  bool task_style = false;
  bool leases = false;
  bool published = false;  // what the first connection sends goes to all others

 private:
  const Load& load_;
  CoreHost host_;
};

void echo(Server& server) {
  server.peers_send();
  server.turn();
}

void echo_with_deadlines(Server& server) {
  server.deadlines = true;
  echo(server);
}

void echo_by_tasks(Server& server) {
  server.task_style = true;
  echo(server);
}

// Each chunk is held until the next batch.
void echo_with_leases(Server& server) {
  server.leases = true;
  server.release_leases();
  echo(server);
}

void publish(Server& server) {
  server.published = true;
  server.kernel.send_to(server.fd(server.conns[0]), 256);
  server.turn();
}

// Connections come, echo one message, and end with the peer's FIN.
void churn(Server& server) {
  constexpr uint32_t kAtOnce = 32;
  const uint64_t closed = server.closed();
  for (uint32_t i = 0; i < kAtOnce; i++) server.kernel.connect();
  server.turn();
  server.peers_send();
  server.turn();
  for (uint32_t conn : server.conns) server.kernel.send_fin_to(server.fd(conn));
  server.conns.clear();
  while (server.closed() < closed + kAtOnce) server.turn();
}

void look_in_vain(Server& server) { server.turn(); }

constexpr Load kLoads[] = {
    {"turn-idle", 64, 0, 0, 1, look_in_vain},
    {"echo-64b-1", 1, 64, 1, 1, echo},
    {"echo-64b-64", 64, 64, 1, 64, echo},
    {"echo-64b-64-d16", 64, 64, 16, 64 * 16, echo},
    {"echo-64k-64", 64, 64 * 1024, 1, 64, echo},
    {"deadline-64b-64", 64, 64, 1, 64, echo_with_deadlines},
    {"task-64b-64", 64, 64, 1, 64, echo_by_tasks},
    {"lease-64b-64", 64, 64, 1, 64, echo_with_leases},
    {"fanout-256b-1000", 1001, 256, 1, 1000, publish},
    {"churn-64b-32", 0, 64, 1, 32, churn},
};

// By this name valgrind knows when to count.
__attribute__((noinline)) void steady_state(Server& server, const Load& load, int batches) {
  for (int i = 0; i < batches; i++) load.batch(server);
}

void warm_up(Server& server, const Load& load) {
  for (int i = 0; i < kWarmUpBatches; i++) load.batch(server);
}

int run(const Load& load, int batches) {
  Server server(load);
  warm_up(server, load);
  uint64_t before[kCalls];
  for (size_t call = 0; call < kCalls; call++) before[call] = server.kernel.calls(static_cast<Call>(call));
  const uint64_t taken_before = server.kernel.taken_bytes();
  steady_state(server, load, batches);
  static constexpr const char* kNames[kCalls] = {"epoll_wait", "epoll_ctl", "accept", "recv",
                                                 "send",       "close",     "other",  "clock"};
  const uint64_t messages = uint64_t{load.counted_as} * static_cast<uint64_t>(batches);
  // A core that did less than the load asks for would look cheap.
  const uint64_t expected = messages * load.message_bytes;
  const uint64_t taken = server.kernel.taken_bytes() - taken_before;
  if (taken != expected) {
    std::fprintf(stderr, "edgewire-core-cost: %s: %llu bytes were sent, not %llu\n", load.name,
                 static_cast<unsigned long long>(taken), static_cast<unsigned long long>(expected));
    return 1;
  }
  std::printf("{\"load\":\"%s\",\"compiler\":\"%s\",\"messages\":%llu,\"calls\":{", load.name, kCompiler,
              static_cast<unsigned long long>(messages));
  for (size_t call = 0; call < kCalls; call++) {
    const uint64_t calls = server.kernel.calls(static_cast<Call>(call)) - before[call];
    std::printf("%s\"%s\":%llu", call == 0 ? "" : ",", kNames[call], static_cast<unsigned long long>(calls));
  }
  std::printf("}}\n");
  return 0;
}

}  // namespace
}  // namespace edgewire::bench

int main(int argc, char** argv) {
  using namespace edgewire::bench;
  if (argc < 2) {
    for (const Load& load : kLoads) std::puts(load.name);
    return 0;
  }
  int batches = kBatches;
  if (argc > 2) {
    const char* end = argv[2] + std::strlen(argv[2]);
    const auto result = std::from_chars(argv[2], end, batches);
    if (result.ec != std::errc() || result.ptr != end || batches < 1) {
      std::fprintf(stderr, "edgewire-core-cost: the number of batches is a whole number from 1 on, not '%s'\n",
                   argv[2]);
      return 2;
    }
  }
  for (const Load& load : kLoads) {
    if (std::string_view(load.name) == argv[1]) return run(load, batches);
  }
  std::fprintf(stderr, "edgewire-core-cost: no load is named '%s'; without arguments it lists them\n", argv[1]);
  return 2;
}
